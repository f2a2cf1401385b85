"""What a job is when its caller names no method: method, options and numbers by a measured table, from public values.

docs/defaults.md has the measurement or the source of each rule.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import DEFAULT_METHOD, get_method
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

Preset = Literal["best", "fast"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
DEFAULT_PRESET: Preset = "best"
PRESET_HELP = (
    "best: chosen for accuracy, by measurements on public sets; fast: a fraction of the time for a little less"
)
UNNAMED = "supervised"
"""OpenAI's name for the method of a job that names none."""


@dataclass(frozen=True)
class Recipe:
    """Options and numbers of the default method; what is not said is the method's own default."""

    numbers: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


_RATE, _RATE_OF_ALL, _RATE_OF_THINNEST = 0.02, 0.005, 0.01
"""Learning rates of few steps: of the method's own layers, of all linear ones, and where noise leaves little."""
_PLENTY = 100.0
"""Signal to noise, as dpcore.terms.expectation has it, from which on all linear layers train: below it the method's own
few reach as much, in less time."""
_MANY_WEIGHTS = 100_000_000
"""Of a model beyond which no classifier was measured."""
_FAINT = 6.0
"""Signal to noise below which rank 1 learns and the default does not."""
_THINNEST = {"r": 1, "alpha": 2.0}


def recipe(
    preset: Preset, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts, labels: int
) -> Recipe:
    """The row of the table for a job at `epsilon` on a file of so many units, and a model of this size."""
    if task in CAUSAL_LM:
        return Recipe({"steps": 20} if preset == "fast" else {})
    steps, batch = (60, 4096) if preset == "best" else (30, 1024)
    numbers: dict[str, Any] = {"steps": steps, "batch_size": min(batch, max(1, declared_size // 4))}
    signal = _signal(declared_size, epsilon, facts, labels, task)
    if preset == "best" and signal >= _PLENTY and facts.parameters <= _MANY_WEIGHTS:
        return Recipe(numbers | {"learning_rate": _RATE_OF_ALL}, {"r": 16, "target_modules": "all-linear"})
    if signal < _FAINT:
        return Recipe(numbers | {"learning_rate": _RATE_OF_THINNEST}, _THINNEST)
    return Recipe(numbers | {"learning_rate": _RATE})


def expanded(
    options: Mapping[str, Any],
    numbers: Mapping[str, Any],
    *,
    task: TaskKind,
    declared_size: int,
    epsilon: float,
    facts: ModelFacts,
    labels: int,
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The default method, its options and its numbers, of which a caller named these: `preset` among the options, and
    anything else goes before the preset's. Raises FieldError for a preset that there is not."""
    own = dict(options)
    preset = own.pop("preset", None)
    if preset is None:  # clients send null for what they leave out
        preset = DEFAULT_PRESET
    if preset not in PRESETS:
        raise FieldError("preset", f"preset: Input should be {' or '.join(map(repr, PRESETS))}")
    made = recipe(preset, task=task, declared_size=declared_size, epsilon=epsilon, facts=facts, labels=labels)
    named = {name: value for name, value in numbers.items() if value != "auto"}
    usual = dict(made.numbers)
    if named.get("optimizer") == "sgd":
        usual.pop("learning_rate", None)  # Adam's: the method says so
    return DEFAULT_METHOD, made.options | own, usual | named


def further_options(task: TaskKind, facts: ModelFacts) -> list[dict[str, Any]]:
    """Options of the default method that a preset chooses for some file, and that train more than its own defaults."""
    found = recipe(DEFAULT_PRESET, task=task, declared_size=10**12, epsilon=1.0, facts=facts, labels=2).options
    return [found] if "target_modules" in found else []


def _signal(declared_size: int, epsilon: float, facts: ModelFacts, labels: int, task: TaskKind) -> float:
    """About the signal to noise that an epsilon buys with the method's default options, whatever batch and steps are:
    by the accountant, for 30 to 200 steps at rates of 0.1 to 0.25 and epsilons of 1 to 8."""
    spec = get_method(DEFAULT_METHOD)
    trained = spec.trainable(spec.Options(), facts, labels=labels, task=task)
    return 0.24 * declared_size * math.pow(max(epsilon, 0.0), 0.7) / math.sqrt(trained)
