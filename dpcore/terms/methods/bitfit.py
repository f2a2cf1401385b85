"""Bias-only fine-tuning (DP-BiTFiT, Bu et al. 2024): every bias and a classifier's new head train, all else is frozen.

A bias needs no saved input. The learning rate is about ten times that of full fine-tuning. With `full_steps` everything
trains first, for so many steps, and then the biases (X+BiTFiT, section 3.2): two phases with one joint price.
"""

from typing import Annotated, Literal

from pydantic import Field

from dpcore.terms import hyperparameters as shared
from dpcore.terms import memory as sizes
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults
from dpcore.terms.methods import full
from dpcore.terms.program import Phase
from dpcore.terms.strict import StrictModel
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

CLASSIFIER = Defaults(steps=200, batch_size=1024, learning_rate=1e-2)
WRITER = Defaults(steps=60, batch_size=512, learning_rate=5e-3)


class Options(StrictModel):
    """What is trained."""

    full_steps: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        exclude_if=lambda steps: steps == 0,  # so that jobs of the first revisions are known again
        description="steps in which everything trains, before the steps of the biases; both are paid for together",
    )


class Request(shared.Request):
    """What a caller may ask for."""

    full_learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        default="auto", description="of the steps in which everything trains"
    )


class Hyperparameters(shared.Hyperparameters):
    """A request with every number resolved."""

    full_learning_rate: float | None = Field(default=None, exclude_if=lambda rate: rate is None)


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Raises ValueError for a model without biases, such as Llama: a head alone is not this method."""
    if facts.biases == 0:
        raise ValueError(
            f"this model ({facts.model_type}) has no biases, so bitfit has nothing to train; lora fits every model"
        )


def resolve(
    request: Request, options: Options, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts
) -> Hyperparameters:
    """The numbers of both phases, which share the batch. Raises FieldError as `require_fitting` does, and for the
    learning rate of a phase that is not there."""
    shared.require_fitting(request, declared_size)
    rate: float | None = None
    if options.full_steps:
        asked = request.full_learning_rate
        rate = (full.WRITER if task in CAUSAL_LM else full.CLASSIFIER).learning_rate if asked == "auto" else asked
    elif request.full_learning_rate != "auto":
        raise FieldError(
            "hyperparameters.full_learning_rate", "full_learning_rate is for full_steps, and there are none"
        )
    default = WRITER if task in CAUSAL_LM else CLASSIFIER
    return Hyperparameters(**shared.resolved(request, default, declared_size), full_learning_rate=rate)


def phases(options: Options, hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
    """The biases' phase; with `full_steps` that of everything before it."""
    if not options.full_steps:
        return (shared.phase(hyperparameters, name="train", trains="bitfit", declared_size=declared_size),)
    first = {"steps": options.full_steps, "learning_rate": hyperparameters.full_learning_rate}
    return (
        shared.phase(hyperparameters, name="everything", trains="full", declared_size=declared_size, **first),
        shared.phase(hyperparameters, name="biases", trains="bitfit", declared_size=declared_size),
    )


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable values: the biases, by BERT's and GPT-2's shape where the weights are not at hand, and the head; all
    weights where they train first."""
    if options.full_steps:
        return full.trainable(full.Options(), facts, labels=labels, task=task)
    layer = 7 * facts.hidden_size + facts.intermediate_size
    biases = facts.layers * layer if facts.biases is None else facts.biases
    return biases + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself: of the phase that needs most."""
    if options.full_steps:
        return full.memory(full.Options(), facts, max_length=max_length, labels=labels, task=task)
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.by_example(train, facts, max_length=max_length, labels=labels)
