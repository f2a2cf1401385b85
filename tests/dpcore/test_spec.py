"""Plans and method specifications: public numbers, checked, without torch."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from dpcore.spec.facts import ModelFacts, read_facts
from dpcore.spec.methods import UnknownMethod, get_method, method_names
from dpcore.spec.plan import Plan

from .test_train import make_plan

FACTS = ModelFacts(
    model_type="bert", hidden_size=384, intermediate_size=1536, layers=6, heads=12, vocab_size=30522, max_positions=512
)


def test_spec_loads_without_torch():
    code = (
        "import sys, dpcore.spec.plan, dpcore.spec.methods as m; m.get_method('lora'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"sample_rate": float("nan")},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("inf")},
        {"steps": 0},
        {"clip_norm": 0.0},
        {"clip_norm": float("inf")},
        {"clipping": "none"},
        {"expected_batch": 0},
        {"unit": "batch"},
        {"relation": "replace_one"},
        {"learning_rate": float("nan")},
        {"betas": (0.9, 1.0)},
        {"noise": 1.0},
    ],
)
def test_plan_refuses_what_would_void_the_guarantee(change):
    with pytest.raises(ValidationError):
        make_plan(**change)


def test_plan_is_frozen_and_survives_json():
    plan = make_plan(options={"r": 4})
    with pytest.raises(ValidationError):
        plan.noise_multiplier = 0.1
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_run_asks_at_most_twenty_times():
    for steps in (1, 19, 20, 21, 199, 200, 1001):
        plan = make_plan(steps=steps)
        assert -(-steps // plan.chunk) <= 20


def test_methods_are_found_by_name():
    assert "lora" in method_names()
    for name in ("loar", "", "../plan", "__init__"):
        with pytest.raises(UnknownMethod, match="lora"):
            get_method(name)


def test_defaults_give_a_valid_plan_from_public_values():
    lora = get_method("lora")
    for size in (2, 10, 500, 67_349, 10_000_000):
        numbers = lora.resolve(lora.Request(), declared_size=size, epsilon=3.0, facts=FACTS)
        plan = lora.plan(lora.Options(), numbers, declared_size=size, noise_multiplier=1.0, max_length=64, seed=0)
        (phase,) = lora.phases(numbers, declared_size=size)
        assert plan.sample_rate == phase.sample_rate == plan.expected_batch / size
        assert plan.steps == phase.steps


def test_what_is_asked_for_is_taken_or_refused():
    lora = get_method("lora")
    assert lora.Request(steps="auto", batch_size="auto", learning_rate="auto") == lora.Request()
    asked = lora.Request(steps=7, batch_size=5, learning_rate=0.5)
    numbers = lora.resolve(asked, declared_size=5, epsilon=3.0, facts=FACTS)
    assert (numbers.steps, numbers.batch_size, numbers.learning_rate) == (7, 5, 0.5)
    with pytest.raises(ValueError, match="declared size 4"):
        lora.resolve(asked, declared_size=4, epsilon=3.0, facts=FACTS)
    for bad in ({"steps": 0}, {"batch_size": -1}, {"learning_rate": float("nan")}, {"steps": "many"}, {"epochs": 3}):
        with pytest.raises(ValidationError):
            lora.Request(**bad)


def test_memory_grows_with_what_needs_it():
    lora = get_method("lora")
    small = lora.memory(lora.Options(), FACTS, max_length=64, labels=2)
    assert lora.memory(lora.Options(r=64), FACTS, max_length=64, labels=2) > small
    assert lora.memory(lora.Options(), FACTS, max_length=512, labels=2) > small
    assert 4 * FACTS.parameters < small < 2**30


def test_facts_of_models_that_name_things_differently(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "distilbert", "dim": 8, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "vocab_size": 9}
        )
    )
    with pytest.raises(ValueError, match="max_positions"):
        read_facts(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_facts(tmp_path).hidden_size == 8
