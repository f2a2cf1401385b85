"""What a job may be expected to learn, before anything is paid: a guess from public values, by a curve that was fitted
to measurements on public sets (docs/defaults.md). It knows nothing of the file's texts, nor how hard they are."""

from dataclasses import dataclass
from math import sqrt

from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import DEFAULT_METHOD, get_method
from dpcore.terms.program import Program
from dpcore.terms.tasks import TaskKind

HALF = 18.0
"""Signal to noise at which the default method gains half of what it can gain: benchmarks/results/utility.jsonl."""
MEASURED: TaskKind = "classification"
"""The task that there are measurements of: single texts with labels."""
UNLIKELY = 0.2
"""Part of the gain below which most jobs are no better than a guess."""
CEILING = 0.9
"""Accuracy that classifiers of short texts with this method and model end at without privacy, about."""
BY_WORDS = 0.5
"""Part of the gain that a head of many labels has from their words before it has seen a row."""
_MANY = 10
"""Labels from which on their words say much."""


@dataclass(frozen=True)
class Expectation:
    """A guess. signal_to_noise: over all steps, of a mean of gradients that all point one way, in so many directions as
    the method trains by default."""

    signal_to_noise: float
    gain: float
    """Part, between 0 and 1, of what training without privacy would gain."""
    accuracy: float
    """Where training without privacy would end at CEILING."""


def signal_to_noise(program: Program, facts: ModelFacts, *, labels: int, task: TaskKind) -> float | None:
    """Expected batch x root of steps / (noise multiplier x root of the weights that train by default); None for a
    method and for tasks that were not measured. How many train otherwise hardly matters: a quarter of the rank reached
    the same."""
    if program.method != DEFAULT_METHOD or task != MEASURED or len(program.training) != 1:
        return None
    spec, (phase,) = get_method(DEFAULT_METHOD), program.training
    trained = spec.trainable(spec.Options(), facts, labels=labels, task=task)
    return phase.expected_batch * sqrt(phase.steps / trained) / phase.mechanism.noise_multiplier


def expected(signal: float, *, labels: int, words: bool) -> Expectation:
    """The guess at this signal to noise. words: whether the head starts from its labels' words."""
    start = BY_WORDS if words and labels >= _MANY else 0.0
    gain = start + (1 - start) * signal / (signal + HALF)
    chance = 1 / labels
    return Expectation(signal, gain, chance + gain * (CEILING - chance))


def least_signal() -> float:
    """Below which learning is unlikely."""
    return HALF * UNLIKELY / (1 - UNLIKELY)
