"""A side network: narrow layers beside a frozen model (DP-MemArc, Liu et al. 2024; Sung et al. 2022).

No backward pass enters the model, so that nothing of it is kept but each layer's output.
"""

from pydantic import Field

from dpcore.terms import memory as sizes
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults, OnePhase, Request
from dpcore.terms.strict import StrictModel
from dpcore.terms.tasks import TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

_one = OnePhase(
    "side",
    classifier=Defaults(steps=200, batch_size=1024, learning_rate=3e-3),
    causal_lm=Defaults(steps=60, batch_size=512, learning_rate=3e-3),
)
resolve, phases = _one.resolve, _one.phases

_MULTIPLE = 16
"""The network's attention heads are so wide."""


class Options(StrictModel):
    """What is trained."""

    reduction: int = Field(
        default=8,
        ge=1,
        le=64,
        description="how many times narrower than the model the network is; its width is a multiple of 16, rounded up",
    )

    def width(self, hidden_size: int) -> int:
        """Of the network beside a model of this size."""
        return -(-hidden_size // (self.reduction * _MULTIPLE)) * _MULTIPLE


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits every model that gives what its layers put out, which only the model itself can tell."""


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable values: the way down from each layer's output, the narrow layers, the way up, and the head."""
    width = options.width(facts.hidden_size)
    ladder = facts.layers * (8 * width**2 + 1)
    return (facts.layers + 2) * facts.hidden_size * width + ladder + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself. Kept for the backward pass: each layer's output, before and
    after it is normalised, and eleven numbers a unit of the narrow layers; one layer of the model is at work."""
    outputs = 2 * (facts.layers + 1) * facts.hidden_size
    ladder = 11 * facts.layers * options.width(facts.hidden_size)
    at_work = sizes.layer(facts, max_length=max_length)
    kept = sizes.of_tokens(outputs + ladder + at_work, max_length=max_length)
    kept += sizes.head(facts, max_length=max_length, labels=labels)
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.values(train, facts, max_length=max_length) + kept
