"""A job whose caller names no method: a preset chooses, by public values; what the caller names goes before it."""

import math
from itertools import product

import pytest

from domain.jobs.advice import SHARES, advise
from domain.kit.refusals import Invalid
from dpcore.terms import accounting
from dpcore.terms.expectation import UNLIKELY
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import DEFAULT_METHOD, get_method
from dpcore.terms.presets import PRESETS, expanded, further_options, recipe
from dpcore.terms.tasks import KINDS
from tests.domain.test_planning import CHATTER, READER, budget_of, plan

SIZES = (1, 3, 300, 4_999, 5_000, 19_999, 20_000, 67_349, 10**9)
AUTO = {"steps": "auto", "batch_size": "auto"}
HUGE = ModelFacts(**READER.model_dump() | {"hidden_size": 4096, "intermediate_size": 16_384, "layers": 32})


def weights(options, facts, task):
    spec = get_method(DEFAULT_METHOD)
    return spec.trainable(spec.Options.model_validate(options), facts, labels=2, task=task)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_row_of_the_table_is_a_job_that_its_method_takes(preset, task):
    spec = get_method(DEFAULT_METHOD)
    for size, epsilon in product(SIZES, (0.0, 0.01, 1.0, 100.0)):
        for facts in (CHATTER, HUGE):
            public = {"task": task, "declared_size": size, "epsilon": epsilon, "facts": facts}
            name, chosen, numbers = expanded({"preset": preset}, {}, labels=2, **public)
            options = spec.Options.model_validate(chosen)
            spec.check(options, facts, task)
            resolved = spec.resolve(spec.Request.model_validate(numbers), options, **public)
            (phase,) = spec.phases(options, resolved, declared_size=size)
            assert name == DEFAULT_METHOD
            assert 0 < phase.mechanism.sample_rate <= 1
            known = [{}, *further_options(task, facts)]  # what workers measure
            assert any(weights(chosen, facts, task) <= weights(one, facts, task) for one in known)


def test_a_large_file_trains_more_weights_and_a_fast_job_takes_fewer_records():
    best, fast = (
        plan(READER, "classification", method="supervised", size=67_349, options={"preset": p}, **AUTO) for p in PRESETS
    )
    assert best.method["lora"] | {"hyperparameters": 0} == {
        "r": 16,
        "alpha": 16.0,
        "dropout": 0.0,
        "target_modules": "all-linear",
        "hyperparameters": 0,
    }
    assert (best.program.method, fast.program.method) == ("lora", "lora")
    assert fast.method["lora"]["r"] == 8

    def records(draft):
        return sum(phase.steps * phase.expected_batch for phase in draft.program.phases)

    assert records(fast) * 5 < records(best)
    small = plan(READER, "classification", method="supervised", size=4_000, options={"preset": None}, **AUTO)
    assert small.method["lora"]["target_modules"] == "auto"


def test_what_a_caller_names_goes_before_a_preset():
    made = plan(
        READER, "classification", method="supervised", size=67_349, options={"r": 4}, steps=7, batch_size="auto"
    )
    assert (made.method["lora"]["r"], made.program.steps) == (4, 7)
    assert (
        made.program.phases[0].expected_batch
        == recipe("best", task="classification", declared_size=67_349, epsilon=3.0, facts=READER, labels=2).numbers[
            "batch_size"
        ]
    )
    named = plan(READER, "classification", method="lora", size=67_349, **AUTO)
    assert named.method["lora"]["target_modules"] == "auto"  # a method that is named has its own defaults


@pytest.mark.parametrize(
    ("options", "numbers", "field"),
    [
        ({"preset": "slow"}, {}, "method.supervised.preset"),
        ({"preset": ["best"]}, {}, "method.supervised.preset"),
        ({}, {"optimizer": "sgd"}, "method.supervised.hyperparameters.learning_rate"),
        ({"rank": 4}, {}, "method.supervised.rank"),
    ],
)
def test_what_no_preset_takes_is_refused_by_name(options, numbers, field):
    with pytest.raises(Invalid) as caught:
        plan(READER, "classification", method="supervised", size=67_349, options=options, **AUTO, **numbers)
    assert caught.value.param == field


def test_advice_grows_with_the_share_the_rows_and_the_records():
    facts = READER
    for method, size in (("supervised", 67_349), ("lora", 5_000)):
        made = plan(facts, "classification", method=method, size=size, share=0.25, **AUTO)
        advice = advise(made, budget_of(), facts, task="classification", labels=2)
        gains = [advice.by_share[share].gain for share in SHARES]
        assert gains == sorted(gains)
        assert 0 < gains[0] < gains[-1] < 1
        assert advice.now.gain == pytest.approx(advice.by_share[0.25].gain, rel=1e-3)
        assert advice.twice_the_rows.gain > advice.now.gain
        assert 0.5 < advice.now.accuracy < 0.9


def test_below_the_least_share_a_job_is_said_not_to_learn():
    made = plan(READER, "classification", method="lora", size=5_000, share=0.5, **AUTO)
    advice = advise(made, budget_of(), READER, task="classification", labels=2)
    assert 0 < advice.least_share < 0.5
    there = plan(READER, "classification", method="lora", size=5_000, share=advice.least_share, **AUTO)
    gain = advise(there, budget_of(), READER, task="classification", labels=2).now.gain
    assert math.isclose(gain, UNLIKELY, rel_tol=0.02)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("size", [500, 8_662, 67_349])
def test_what_an_epsilon_buys_hardly_depends_on_batch_and_steps(size, epsilon):
    """So that a few steps at a large rate learn about as much as many, and what trains can be chosen before both."""
    for steps, rate in ((30, 0.25), (60, 0.12), (60, 0.25), (100, 0.1), (200, 0.1), (200, 0.25)):
        filter = accounting.reference_filter(epsilon, 1 / (10 * size), rate, steps)
        noise = accounting.calibrate(epsilon, 1 / (10 * size), filter, (accounting.Part(rate, steps),))
        bought = size * rate * math.sqrt(steps) / noise
        assert 0.75 < bought / (0.24 * size * epsilon**0.7) < 1.6, (steps, rate)


def test_how_much_the_noise_leaves_decides_what_trains():
    base = ModelFacts(**READER.model_dump() | {"hidden_size": 384, "intermediate_size": 1536, "layers": 6})
    ranks = {
        (size, epsilon): plan(base, "classification", method="supervised", size=size, epsilon=epsilon, **AUTO).method
        for size, epsilon in ((500, 8.0), (3_000, 8.0), (3_000, 0.5), (67_349, 1.0), (67_349, 3.0), (20_000, 3.0))
    }
    assert {case: (method["lora"]["r"], method["lora"]["target_modules"]) for case, method in ranks.items()} == {
        (500, 8.0): (1, "auto"),
        (3_000, 8.0): (8, "auto"),
        (3_000, 0.5): (1, "auto"),
        (67_349, 1.0): (8, "auto"),
        (67_349, 3.0): (16, "all-linear"),
        (20_000, 3.0): (8, "auto"),
    }


@pytest.mark.parametrize(
    ("task", "method"),
    [("classification", "full"), ("classification", "zo"), ("pair", "lora"), ("text", "lora")],
)
def test_nothing_is_guessed_of_what_was_not_measured(task, method):
    made = plan(CHATTER, task, method=method)
    assert advise(made, budget_of(), CHATTER, task=task, labels=2) is None
