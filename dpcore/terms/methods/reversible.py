"""Adapters in a reversible network (DP-MemArc, Liu et al. 2024; MEFT, Liao et al. 2023).

The frozen layers are coupled so that each can be undone: going back, a layer's input is found again from its output,
and memory hardly grows with depth.
"""

from pydantic import Field

from dpcore.terms import memory as sizes
from dpcore.terms.facts import ModelFacts, require_texts
from dpcore.terms.hyperparameters import Defaults, OnePhase, Request
from dpcore.terms.strict import StrictModel
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

_one = OnePhase(
    "reversible",
    classifier=Defaults(steps=200, batch_size=1024, learning_rate=3e-2),
    causal_lm=Defaults(steps=60, batch_size=512, learning_rate=5e-3),
)
resolve, phases = _one.resolve, _one.phases


class Options(StrictModel):
    """What is trained."""

    width: int = Field(default=8, ge=1, le=256, description="of the adapter beside each layer")


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits every model whose layers are one list that nothing stands between, which only the model itself can tell.
    Raises ValueError for one of pictures."""
    require_texts("reversible", facts)


def coupled(layers: int, task: TaskKind) -> int:
    """How many of a model's layers are coupled and get an adapter: all; for a classifier the upper half, below which
    nothing needs a backward pass."""
    return layers if task in CAUSAL_LM else (layers + 1) // 2


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable values: the way down and up beside each coupled layer, and the head."""
    adapters = 2 * coupled(facts.layers, task) * facts.hidden_size * options.width
    return adapters + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself. Kept for the backward pass: a byte of each number of a
    layer's output, a quarter of a float32. One layer of the model is at work, with its adapter, two states in int64 and
    what they are made of."""
    lost = -(-coupled(facts.layers, task) * facts.hidden_size // 4)
    at_work = sizes.layer(facts, max_length=max_length) + 16 * facts.hidden_size + 2 * options.width
    kept = sizes.of_tokens(lost + at_work, max_length=max_length)
    kept += sizes.head(facts, max_length=max_length, labels=labels)
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.values(train, facts, max_length=max_length) + kept
