"""What a job is when its caller names no method: method, options and numbers by a measured table, from public values.

docs/defaults.md has the measurement or the source of each rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import DEFAULT_METHOD
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

Preset = Literal["best", "fast"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
DEFAULT_PRESET: Preset = "best"
PRESET_HELP = "best: what reached most, measured on public sets; fast: a fraction of the time for a little less"
UNNAMED = "supervised"
"""OpenAI's name for the method of a job that names none."""


@dataclass(frozen=True)
class Recipe:
    """Options and numbers of the default method; what is not said is the method's own default."""

    numbers: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


_LARGE, _SMALL = 20_000, 5_000
"""Declared sizes."""
_MANY_WEIGHTS = 100_000_000
"""Of a model beyond which no classifier was measured."""


def recipe(preset: Preset, *, task: TaskKind, declared_size: int, facts: ModelFacts) -> Recipe:
    """The row of the table for a file of so many units and a model of this size."""
    if task in CAUSAL_LM:
        return Recipe({"steps": 20} if preset == "fast" else {})
    if preset == "fast":
        return Recipe({"steps": 60, "batch_size": _at_most(512, declared_size)})
    if declared_size >= _LARGE and facts.parameters <= _MANY_WEIGHTS:
        return Recipe(
            {"steps": 150, "batch_size": _at_most(2048, declared_size), "learning_rate": 5e-3},
            {"r": 16, "target_modules": "all-linear"},
        )
    return Recipe()


def expanded(
    options: Mapping[str, Any], numbers: Mapping[str, Any], *, task: TaskKind, declared_size: int, facts: ModelFacts
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The default method, its options and its numbers, of which a caller named these: `preset` among the options, and
    anything else goes before the preset's. Raises FieldError for a preset that there is not."""
    own = dict(options)
    preset = own.pop("preset", None)
    if preset is None:  # clients send null for what they leave out
        preset = DEFAULT_PRESET
    if preset not in PRESETS:
        raise FieldError("preset", f"preset: Input should be {' or '.join(map(repr, PRESETS))}")
    made = recipe(preset, task=task, declared_size=declared_size, facts=facts)
    named = {name: value for name, value in numbers.items() if value != "auto"}
    usual = dict(made.numbers)
    if named.get("optimizer") == "sgd":
        usual.pop("learning_rate", None)  # Adam's: the method says so
    return DEFAULT_METHOD, made.options | own, usual | named


def further_options(task: TaskKind, facts: ModelFacts) -> list[dict[str, Any]]:
    """Options of the default method, where they are not its defaults, that a preset chooses for files of some size."""
    found = [recipe(p, task=task, declared_size=n, facts=facts).options for p in PRESETS for n in (0, _SMALL, _LARGE)]
    return [one for place, one in enumerate(found) if one and one not in found[:place]]


def _at_most(batch: int, declared_size: int) -> int:
    return min(batch, max(1, declared_size // 4))
