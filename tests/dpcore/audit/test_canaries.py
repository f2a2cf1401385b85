"""The audit of one run: honest training stays below its claim, and each way to break it rises above."""

import numpy as np
import pytest

from . import broken

USUAL = {"steps": 1}


def best(bounds):
    return max(bound for bound in bounds if bound is not None)


USERS = USUAL | {"unit": "user"}
TIED = USUAL | {"method": "full", "task": "text", "how": "loud head"}


@pytest.mark.parametrize(("count", "parts"), [(120, USUAL), (96, USERS), (60, TIED)], ids=["records", "users", "tied"])
def test_an_honest_run_stays_below_its_claim_and_is_not_without_signal(audit, count, parts):
    bounds, claim, scored = audit("canaries", count, **parts)
    assert best(bounds) <= claim
    assert scored.accuracy > 0.52  # the audit sees canaries, so that it could have failed
    assert 0.35 < scored.included.mean() < 0.65


@pytest.mark.parametrize(
    ("way", "count", "parts"),
    [
        ("no clipping", 48, USUAL),
        ("users clipped record by record", 96, USERS),
        ("a tied weight counted once", 48, TIED),
    ],
)
def test_a_broken_run_rises_above_its_claim(audit, way, count, parts):
    with broken.BROKEN[way]():
        bounds, claim, _ = audit("canaries", count, **parts)
    assert best(bounds) > claim


def test_half_the_noise_is_found_by_the_fit_and_not_by_guesses(audit):
    """Why both are reported: so few guesses cannot show an epsilon as large as the claim."""
    with broken.half_the_noise():
        (direct, _, fitted), claim, _ = audit("canaries", 160, task="text", **USUAL)
    assert direct < claim < fitted


def test_canaries_that_are_left_out_leave_no_trace(audit):
    """Without noise and with hardly any movement, the scores of those that were in are apart from all others."""
    with broken.no_noise_and_no_clipping():
        _, _, scored = audit("canaries", 32, **USUAL)
    assert scored.values[scored.included].min() > scored.values[~scored.included].max()


TWICE = {"sample_rate": 0.5, "epsilon": 1.0, "steps": 2}
OF_A_JOB = {"steps": 40, "epsilon": 0.5}


def test_differences_of_steps_find_noise_that_was_drawn_twice(audit):
    with broken.noise_drawn_twice():
        bounds, claim, _ = audit("differences", 96, **TWICE)
    assert bounds[0] > claim
    assert bounds[1:] == (None, None)  # a draw is no step on the whole file


def test_one_federated_round_is_read_from_its_message_alone(audit):
    bounds, claim, scored = audit("round", 48, method="federated-lora", steps=1)
    assert best(bounds) <= claim
    assert scored.accuracy > 0.5
    with broken.no_clipping():
        bounds, claim, _ = audit("round", 48, method="federated-lora", steps=1)
    assert best(bounds) > claim


def test_membership_by_the_released_weights_finds_plain_training(audit):
    with broken.no_noise_and_no_clipping():
        bounds, claim, _ = audit("membership", 96, **OF_A_JOB)
    assert best(bounds) > claim
    assert bounds[2] is None  # losses are not normal


@pytest.mark.verify
@pytest.mark.parametrize(("name", "parts"), [("differences", TWICE), ("membership", OF_A_JOB)])
def test_the_same_audits_of_honest_training_find_nothing(audit, name, parts):
    bounds, claim, _ = audit(name, 96, **parts)
    assert best(bounds) <= claim


EVERY = [
    (method, task, unit)
    for method in ("bitfit", "distill", "full", "lora", "lora-fa", "prune", "reversible", "side", "zo")
    for task in ("classification", "text")
    for unit in ("record", "user")
] + [("federated-lm", "text", "user"), ("lora", "pair", "record"), ("lora", "chat", "user")]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("method", "task", "unit"), EVERY)
def test_every_method_task_and_unit_can_be_audited(audit, method, task, unit):
    bounds, claim, scored = audit("canaries", 24, method=method, task=task, unit=unit, steps=1, confidence=0.999)
    assert np.isfinite(scored.values).all()
    assert best(bounds) <= claim


@pytest.mark.verify
@pytest.mark.parametrize("clipping", ["flat", "automatic", "per-layer", "adaptive"])
def test_half_the_noise_is_found_under_each_way_of_clipping(audit, clipping):
    honest, claim, _ = audit("canaries", 400, clipping=clipping, steps=2)
    assert best(honest) <= claim
    with broken.half_the_noise():
        bounds, claim, _ = audit("canaries", 400, clipping=clipping, steps=2)
    assert best(bounds) > claim
