"""LoRA with the first matrix frozen (LoRA-FA, Zhang et al. 2023): half the weights train, so half the noise is added.

A frozen random projection also needs no saved input of full width, and no gradient of its own.
"""

from dpcore.terms import memory as sizes
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults, OnePhase, Request
from dpcore.terms.methods.lora import Options, check, widths
from dpcore.terms.tasks import TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

_one = OnePhase(
    "lora-fa",
    classifier=Defaults(steps=200, batch_size=1024, learning_rate=1e-2),
    causal_lm=Defaults(steps=60, batch_size=512, learning_rate=5e-3),
)
resolve, phases = _one.resolve, _one.phases


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable weights: the second matrices and the head."""
    second = sum(outputs for _, outputs in widths(options, facts, task))
    return options.r * second + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself."""
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.by_example(train, facts, max_length=max_length, labels=labels)
