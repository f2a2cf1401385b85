"""Full fine-tuning (DP-SGD, Abadi et al. 2016): every weight trains."""

from dpcore.terms import memory as sizes
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults, OnePhase, Request
from dpcore.terms.strict import StrictModel
from dpcore.terms.tasks import TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

CLASSIFIER = Defaults(steps=100, batch_size=1024, learning_rate=2e-3)
WRITER = Defaults(steps=40, batch_size=512, learning_rate=1e-3)

_one = OnePhase("full", classifier=CLASSIFIER, causal_lm=WRITER)
resolve, phases = _one.resolve, _one.phases


class Options(StrictModel):
    """What is trained: the method has nothing to choose."""


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits every model."""


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """All weights and a classifier's head."""
    return facts.parameters + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes: each weight with its sum and noise in float64, gradient and Adam's two moments, and for one micro-batch
    the layers' inputs and output gradients, which are kept until the norms are known."""
    weights = 4 * 8 * trainable(options, facts, labels=labels, task=task)
    return weights + 2 * sizes.activations(facts, max_length=max_length, labels=labels, head_trains=True)
