"""From a request and public values to a plan: what cannot work is refused before anything is charged."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domain.access.reference import reference_job
from domain.jobs.planning import Dataset, Draft, draft
from domain.kit.refusals import Invalid
from domain.models.allow_list import BaseModelFacts
from domain.models.profiles import Profile, seconds
from dpcore.terms import accounting
from dpcore.terms.estimators import Measurement
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import method_names
from dpcore.terms.tasks import KINDS, TaskKind, get_kind
from ledger.budgets import Balance

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "layers": 2,
    "heads": 2,
    "vocab_size": 100,
    "max_positions": 128,
}
READER = ModelFacts(model_type="bert", biases=500, **SHAPE)
WRITER = ModelFacts(model_type="llama", causal_lm=True, biases=0, **SHAPE)
CHATTER = WRITER.model_copy(update={"chat_template": True})
SEER = READER.model_copy(
    update={"model_type": "vit", "pictures": True, "vocab_size": 1, "max_positions": 197, "side": 224}
)
FILTER = accounting.reference_filter(8.0, 1e-5, 0.05, 100)


def budget_of(unit: str = "record", held_out: float = 0.0) -> Balance:
    """An empty budget of epsilon 8."""
    return Balance(
        id="budget",
        tenant_id="tenant",
        epsilon=8.0,
        delta=1e-5,
        unit=unit,
        max_records_per_user=2 if unit == "user" else None,
        filter=FILTER,
        cap=accounting.caps(8.0, 1e-5, FILTER),
        spent=FILTER.nothing,
        reserved=FILTER.nothing,
        frozen_reason=None,
        held_out=held_out,
    )


def plan(
    facts: ModelFacts,
    task: TaskKind,
    *,
    method: str = "lora",
    unit: str = "record",
    words: bool = False,
    held_out: float = 0.0,
    measure: float | None = None,
    size: int = 1000,
    share: float | None = None,
    epsilon: float = 3.0,
    options: dict[str, Any] | None = None,
    **numbers: Any,
) -> Draft:
    labels = 2 if get_kind(task).labelled else 0
    asked: dict[str, Any] = {"steps": 100, "batch_size": 50, **numbers}
    return draft(
        method=method,
        options=options or {},
        hyperparameters=asked,
        epsilon=epsilon if share is None else None,
        share=share,
        delta=None,
        measure=measure,
        seed=0,
        model=BaseModelFacts("base", Path("/nowhere"), facts, "0" * 64, 0),
        dataset=Dataset(task, size, labels, 64, words),
        budget=budget_of(unit, held_out),
    )


@pytest.mark.parametrize(
    ("facts", "task", "method", "code", "param"),
    [
        (READER, "completion", "lora", "unsupported_task", "model"),
        (READER, "text", "full", "unsupported_task", "model"),
        (READER, "chat", "lora", "unsupported_task", "model"),
        (WRITER, "chat", "lora", "no_chat_template", "model"),
        (WRITER, "text", "bitfit", "unsupported_method", "method.type"),
        (WRITER, "classification", "bitfit", "unsupported_method", "method.type"),
    ],
)
def test_what_cannot_work_is_refused_by_the_field_that_asks_for_it(facts, task, method, code, param):
    with pytest.raises(Invalid) as caught:
        plan(facts, task, method=method)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("method", ["lora", "lora-fa", "full"])
def test_a_language_model_with_a_template_fits_every_task_of_texts(task, method):
    if get_kind(task).of_pictures:
        with pytest.raises(Invalid, match=r"the training file holds pictures, and .* reads texts"):
            plan(CHATTER, task, method=method)
        return
    made = plan(CHATTER, task, method=method)
    assert made.method["type"] == made.program.method == method
    assert made.memory > 0


def test_a_picture_is_as_long_as_its_model_sees_it_and_its_views_cost_time_alone():
    one, four = plan(SEER, "image"), plan(SEER, "image", views=4)
    assert (one.program.max_length, one.program.views, four.program.views) == (197, 1, 4)
    assert (one.cost, one.epsilon) == (four.cost, four.epsilon)
    assert plan(CHATTER, "text").rows == 0
    kept = 64  # the file's resolution
    assert plan(SEER, "image", size=10_000).rows == 10_000 * (3 * 224**2 + 4 * kept**2)
    known = [Profile("lora", "image", "cpu", 197, 1000.0, 1, 1, datetime.now(UTC))]
    assert seconds(four.program, known, SEER) == 4 * seconds(one.program, known, SEER)
    with pytest.raises(Invalid, match=r"method\.lora\.hyperparameters\.views: only pictures have several views"):
        plan(READER, "classification", views=2)
    with pytest.raises(Invalid, match=r"the training file holds texts, and .* sees pictures"):
        plan(SEER, "classification")


def test_what_is_done_with_gradients_changes_no_price():
    """Clipping, optimiser and averaging as asked for, at the same cost; the job says them all."""
    asked = {"clipping": "adaptive", "clip_norm": 0.5, "optimizer": "adam-bc", "weight_averaging": 0.99}
    made, usual = plan(READER, "classification", **asked), plan(READER, "classification")
    assert asked.items() <= made.program.phases[0].model_dump().items()
    assert asked.items() <= made.method["lora"]["hyperparameters"].items()
    assert (made.cost, made.epsilon) == (usual.cost, usual.epsilon)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"clip_norm": 0}, "hyperparameters.clip_norm: Input should be greater than or equal to 0.000001"),
        ({"weight_averaging": 1}, "hyperparameters.weight_averaging: Input should be less than 1"),
        (
            {"clipping": "none"},
            "hyperparameters.clipping: Input should be 'automatic', 'flat', 'per-layer' or 'adaptive'",
        ),
        ({"optimizer": "sgd"}, "sgd needs a learning_rate"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(asked, says):
    with pytest.raises(Invalid, match=says):
        plan(READER, "classification", **asked)


def test_a_budget_for_users_is_planned_in_users():
    """The declared size counts users, so the rate is that of a user in a draw, at the same price."""
    by_user, by_record = plan(READER, "classification", unit="user"), plan(READER, "classification")
    assert (by_user.program.unit, by_record.program.unit) == ("user", "record")
    (phase,) = by_user.program.phases
    assert phase.mechanism.sample_rate == phase.expected_batch / 1000
    assert by_user.cost == by_record.cost


def test_the_reference_job_is_that_of_the_task():
    read, wrote = (reference_job(42_000, 8.0, WRITER, task) for task in ("classification", "completion"))
    assert wrote != read


def test_a_head_starts_from_words_where_the_labels_are_words_unless_told_otherwise():
    """The program says how, so that an attempt that is made again begins alike."""
    for words, asked, head in [(True, {}, "words"), (True, {"head": "random"}, "random"), (False, {}, "random")]:
        made = plan(READER, "classification", words=words, **asked)
        assert made.program.head == made.method["lora"]["hyperparameters"]["head"] == head
    with pytest.raises(Invalid) as caught:
        plan(READER, "classification", words=False, head="words")
    assert caught.value.param == "method.lora.hyperparameters.head"


@pytest.mark.parametrize("method", [name for name in method_names() if name != "federated-lora"])
def test_every_method_draws_from_what_is_not_held_out_and_pays_for_its_measurement(method: str) -> None:
    """The price is a sum, and what it takes to be measured does not depend on the method."""
    users = method == "federated-lm"
    facts, task, most_loss = (WRITER, "text", 4.61) if users else (READER, "classification", None)
    unit = "user" if users else "record"
    made = plan(facts, task, method=method, unit=unit, held_out=0.4, measure=0.05)  # type: ignore[arg-type]
    program = made.program
    look = program.measurement
    assert look is not None
    assert isinstance(look.estimator, Measurement)
    assert (look.estimator.units, look.estimator.most_loss) == (400, most_loss)
    for phase in program.training:
        assert phase.mechanism.sample_rate in (1.0, pytest.approx(phase.expected_batch / 600))
    assert made.cost == accounting.total([phase.cost(FILTER.orders) for phase in program.phases])
    assert 2.99 < made.epsilon <= 3.0
    with_other = plan(facts, task, method=method, unit=unit, held_out=0.4)  # type: ignore[arg-type]
    assert with_other.program.training[0].mechanism.noise_multiplier < program.training[0].mechanism.noise_multiplier
    measured = Profile(method, task, "cpu", 64, 1000.0, 1, None, datetime.now(UTC))  # type: ignore[arg-type]
    lasts = seconds(program, [measured] * len(program.phases), facts)
    assert lasts > seconds(with_other.program, [measured] * len(with_other.program.phases), facts)
