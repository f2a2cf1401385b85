"""Zeroth order: no backward pass at all (DPZero, Zhang et al. 2024; DP-ZO, Tang et al. 2024).

Weights move along random directions, by how much clipped and noised differences of forward passes say. Training needs
about the memory of inference. By default LoRA's factors and a classifier's head train, as an option all weights.
"""

from typing import Annotated, Literal

from pydantic import Field

from dpcore.terms import hyperparameters as shared
from dpcore.terms import memory as sizes
from dpcore.terms.errors import FieldError
from dpcore.terms.estimators import ZerothOrder
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults
from dpcore.terms.methods import full, lora
from dpcore.terms.program import Phase
from dpcore.terms.strict import Listed, StrictModel
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

_CLASSIFIER = Defaults(steps=600, batch_size=128, learning_rate=0.01)
_WRITER = Defaults(steps=600, batch_size=128, learning_rate=0.01)
_DIRECTIONS = 1


class Options(StrictModel):
    """What is trained."""

    weights: Literal["lora", "all"] = Field(default="lora", description="LoRA's factors, or all weights of the model")
    r: int = Field(default=1, ge=1, le=256, description="rank of LoRA's update: fewer weights take fewer steps")
    alpha: float = Field(default=2.0, gt=0, le=1e4, description="the update is scaled by alpha / r")
    target_modules: str | Listed[tuple[str, ...]] = Field(
        default=lora.AUTO, description="the layers that LoRA adapts, as for the method lora"
    )

    @property
    def lora(self) -> lora.Options:
        """Of the adapter."""
        return lora.Options(r=self.r, alpha=self.alpha, target_modules=self.target_modules)


class Request(shared.Request):
    """What a caller may ask for."""

    directions: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        default="auto", description="random directions in each step: all of them are one output with one price"
    )
    scale: float = Field(default=1e-3, gt=0, le=1, description="how far weights are moved along a direction")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd: without momentum")


class Hyperparameters(shared.Hyperparameters):
    """A request with every number resolved."""

    directions: int
    scale: float


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits every model. Raises FieldError as `lora` does, and for options of an adapter that there is not."""
    if options.weights == "lora":
        lora.check(options.lora, facts, task)
        return
    needless = sorted(options.model_fields_set - {"weights"})
    if needless:
        raise FieldError(
            needless[0], f"{needless[0]} is LoRA's, and with weights: all there is no adapter; leave it out"
        )


def resolve(
    request: Request, options: Options, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts
) -> Hyperparameters:
    """The numbers of the one phase. Raises FieldError for a batch above the declared size and for clipping that needs
    gradients of layers, or a norm that is followed."""
    if request.clipping not in ("automatic", "flat"):
        raise FieldError(
            "hyperparameters.clipping", f"zo clips a few numbers a unit, automatic or flat, not {request.clipping}"
        )
    shared.require_batch(request, declared_size)
    default = _WRITER if task in CAUSAL_LM else _CLASSIFIER
    return Hyperparameters(
        **shared.resolved(request, default, declared_size),
        betas=(0.0, 0.999),
        directions=_DIRECTIONS if request.directions == "auto" else request.directions,
        scale=request.scale,
    )


def phases(options: Options, hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
    """One phase on a zeroth-order estimator."""
    estimator = ZerothOrder(directions=hyperparameters.directions, scale=hyperparameters.scale)
    return (shared.phase(hyperparameters, name="train", trains="zo", declared_size=declared_size, estimator=estimator),)


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable weights: LoRA's and the head's, or all."""
    if options.weights == "lora":
        return lora.trainable(options.lora, facts, labels=labels, task=task)
    return full.trainable(full.Options(), facts, labels=labels, task=task)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself: of inference, with one layer at work; an adapter's weights
    are kept twice, of all weights there is the gradient of one at a time."""
    train = trainable(options, facts, labels=labels, task=task)
    weights = facts.parameters + (2 * train if options.weights == "lora" else facts.vocab_size * facts.hidden_size)
    at_work = sizes.of_tokens(sizes.layer(facts, max_length=max_length), max_length=max_length)
    return 4 * weights + at_work + sizes.head(facts, max_length=max_length, labels=labels)
