"""How long a job takes by what was measured: a model that loses its layers is faster from then on, and no sooner."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.models.profiles import Measurements, Profile, of_pair, seconds
from dpcore.terms.facts import ModelFacts
from dpcore.terms.mechanisms import PoissonGaussian
from dpcore.terms.methods import get_method
from dpcore.terms.program import Phase, Program

FACTS = ModelFacts(
    model_type="bert", hidden_size=8, intermediate_size=16, layers=4, heads=2, vocab_size=3, max_positions=1
)
"""A layer has 512 weights, everything else 32."""
FOUR = {"kind": "structured", "keep_layers": [0, 3], "rounds": 2, "first": 4, "last": 8}


def profile(speed: float, method: str = "full", memory: int = 0) -> Profile:
    return Profile(method, "classification", "cpu", 32, speed, memory, None, datetime.now(UTC))


def program(method: str, options: dict[str, Any], *names: str) -> Program:
    mechanism = PoissonGaussian(sample_rate=0.1, noise_multiplier=1.0)
    numbers = {"mechanism": mechanism, "steps": 12, "clip_norm": 1.0, "expected_batch": 10, "learning_rate": 0.1}
    phases = tuple(Phase(name=name, trains="full", **numbers) for name in names)
    chosen = get_method(method).Options.model_validate(options).model_dump(mode="json")
    return Program(method=method, options=chosen, max_length=10, phases=phases)


def share(layers: int) -> float:
    return (512 * layers + 32) / (512 * 4 + 32)


@pytest.mark.parametrize(
    ("options", "done", "steps"),
    [
        ({}, 0, 12),
        ({}, 5, 7),
        (FOUR, 0, 4 + 4 * share(3) + 4 * share(2)),
        (FOUR, 6, 2 * share(3) + 4 * share(2)),
        (FOUR, 12, 0),
        ({"kind": "structured", "keep_layers": 1, "when": "start"}, 2, 10 * share(1)),
        ({"kind": "structured", "keep_layers": 1, "weights": "lora"}, 0, 12 * share(1)),
        ({**FOUR, "last": 12}, 0, 4 + 8 * share(3)),
    ],
)
def test_a_step_counts_by_the_layers_that_are_left_in_it(options: dict[str, Any], done: int, steps: float) -> None:
    made = program("prune", options, "train")
    assert seconds(made, [profile(100)], FACTS, [done]) == pytest.approx(steps * 10 * 10 / 100)


def test_a_measurement_with_options_that_the_method_has_not_says_nothing() -> None:
    odd = [replace(profile(1), method="lora", options=options) for options in ({"rank": 3}, {"r": 0}, {"r": "8"})]
    usual = replace(profile(100), method="lora", options={})
    assert Measurements(FACTS, [*odd, usual], []).expected("lora", "classification", {"r": 64}) == usual
    assert Measurements(FACTS, odd, []).expected("lora", "classification") is None


def test_a_student_of_another_model_is_as_fast_as_both_models_allow() -> None:
    made = program("distill", {"student_model": "small"}, "teacher", "student")
    large, small = (Measurements(FACTS, [profile(speed, memory=memory)], []) for speed, memory in ((50, 7), (200, 3)))
    both = of_pair(made, "classification", large, small)
    assert [p.tokens_per_second for p in both] == pytest.approx([50, 40])
    assert [p.peak_bytes for p in both] == [7, 7]
    assert seconds(made, both, FACTS) == pytest.approx(12 * 100 / 50 + 12 * 100 / 40)
    assert of_pair(made, "classification", large, None) == tuple(large.profiles * 2)
    assert of_pair(made, "classification", large, Measurements(FACTS, [], [])) == ()
