"""Bias-only fine-tuning (DP-BiTFiT, Bu et al. 2024): every bias and a classifier's new head train, all else is frozen.

A bias needs no saved input. The learning rate is about ten times that of full fine-tuning.
"""

from dpcore.terms import memory as sizes
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults, Hyperparameters, OnePhase, Request
from dpcore.terms.strict import StrictModel
from dpcore.terms.tasks import TaskKind

__all__ = ["Hyperparameters", "Options", "Request", "check", "memory", "phases", "plan", "resolve", "trainable"]

_one = OnePhase(
    "bitfit",
    classifier=Defaults(steps=200, batch_size=1024, learning_rate=1e-2),
    causal_lm=Defaults(steps=60, batch_size=512, learning_rate=5e-3),
)
resolve, phases, plan = _one.resolve, _one.phases, _one.plan


class Options(StrictModel):
    """What is trained: the method has nothing to choose."""


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Raises ValueError for a model without biases, such as Llama: a head alone is not this method."""
    if facts.biases == 0:
        raise ValueError(
            f"this model ({facts.model_type}) has no biases, so bitfit has nothing to train; lora fits every model"
        )


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable values: the biases, by BERT's and GPT-2's shape where the weights are not at hand, and the head."""
    layer = 7 * facts.hidden_size + facts.intermediate_size
    biases = facts.layers * layer if facts.biases is None else facts.biases
    return biases + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself."""
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.by_example(train, facts, max_length=max_length, labels=labels)
