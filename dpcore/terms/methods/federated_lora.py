"""LoRA over several private files, each under a budget of its own (DP-LoRA, Liu et al. 2023, made honest): what is said
here is of one silo, whose budget is asked."""

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from dpcore.terms import memory as sizes
from dpcore.terms.facts import ModelFacts, require_texts
from dpcore.terms.federated import options as federated
from dpcore.terms.federated import payload, silo
from dpcore.terms.federated.silo import Request
from dpcore.terms.hyperparameters import Hyperparameters
from dpcore.terms.methods import lora
from dpcore.terms.strict import Listed
from dpcore.terms.tasks import TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

phases = silo.phases


class Options(federated.Options):
    """What is trained, in which rounds, and who takes part."""

    silos: Listed[tuple[str, ...]] = Field(
        default=(), max_length=99, description="accepted invitations, whose files are learnt from beside training_file"
    )
    round_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=86400,
        description=(
            "a silo's message is shown at a whole multiple of this time since its round began, so that it does not "
            "tell how long the silo's records took"
        ),
    )
    patience_seconds: float = Field(
        default=900.0,
        ge=1,
        le=604800,
        description="how long a round waits for a silo that has not sent its message; it may come back in a later one",
    )

    @model_validator(mode="after")
    def _public_times(self) -> Self:
        if self.patience_seconds < 2 * self.round_seconds:
            raise ValueError("patience_seconds must be at least twice round_seconds, or no message would come in time")
        return self

    @field_validator("silos")
    @classmethod
    def _each_once(cls, silos: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(silos)) < len(silos):
            raise ValueError("an invitation is named once")
        return silos


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """As for LoRA. Raises FieldError, and ValueError for a model of pictures."""
    require_texts("federated-lora", facts)
    lora.check(options.lora, facts, task)


def resolve(
    request: Request, options: Options, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts
) -> Hyperparameters:
    """The numbers of one silo. Raises FieldError for a batch larger than its declared size."""
    return silo.resolve(request, options, declared_size=declared_size)


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Weights that some round trains, about."""
    alike: dict[str, Any] = {"labels": labels, "task": task}
    both = options.model_copy(update={"factors": "both"}) if options.factors == "alternating" else options
    return payload.numbers(both, facts, **alike)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that a silo needs beside the process itself."""
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.by_example(train, facts, max_length=max_length, labels=labels)
