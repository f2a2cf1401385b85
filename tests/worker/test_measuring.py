"""Jobs that measure their result on units that the budget holds out: what is trained on, what is charged, and workers
that are killed around the one look."""

import random
from collections.abc import Callable
from decimal import Decimal
from math import exp
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from safetensors.torch import load

from domain.files.held_out import is_held_out
from domain.kit.ids import new_id
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job_event
from dpcore.terms.program import Phase, one_look
from ledger.budgets import Reference, open_budget
from tests.worker import tiny
from tests.worker.books import authorised, lose, wrong
from tests.worker.service import DECLARED, Service
from tests.worker.test_programs import Attempt, Died, after, report
from worker import training as module
from worker.attempt import attempt

STEPS, SHARE = 10, 0.3
USERS = 80


@pytest.fixture
def go(engine: sa.Engine, settings: WorkerSettings) -> Attempt:
    return lambda job_id: attempt(engine, settings, job_id)


def measured(service: Service, *, users: bool = False, lots: bool = True, **more: Any) -> tuple[str, set[str]]:
    """A job with a measurement, and the texts of its rows that are held out."""
    budget_id, chosen = new_id("budget"), random.Random(3)
    with service.api.begin() as c:
        open_budget(
            c,
            id=budget_id,
            tenant_id="tenant_a",
            name=budget_id,
            epsilon=Decimal(100),
            delta=Decimal("1e-5"),
            unit="user" if users else "record",
            max_records_per_user=9 if users else None,
            held_out=Decimal("0.3"),
            reference=Reference(0.05, 200),
        )
    texts, labels = tiny.rows(DECLARED, seed=1)
    texts = [f"{text} {['the', 'of'][i % 2]} {i}" for i, text in enumerate(texts)]  # no two are one
    drawn = [chosen.randrange(2**64) for _ in range(USERS if users else DECLARED)]
    of_rows = [drawn[i % len(drawn)] for i in range(DECLARED)]
    file = service.add_file(
        *(texts, labels),
        private=True,
        budget_id=budget_id,
        users=USERS if users else None,
        lots=of_rows if lots else None,
        task=more.get("task", "classification"),
    )

    def then_measure(last: Phase) -> tuple[Phase, ...]:
        look = one_look(
            last.trains,
            1.0 if users else 2.0,
            units=DECLARED * 3 // 10,
            most_loss=3.1 if "task" in more else None,
        )
        return last, look

    id = service.submit(
        steps=STEPS,
        train_file=file,
        budget_id=budget_id,
        phases=then_measure,
        hint=False,
        unit="user" if users else None,
        **{"sigma": 1.0} | more,
    )
    out = {text for text, lot in zip(texts, of_rows, strict=True) if is_held_out(lot, budget_id, SHARE)}
    assert 0.1 * DECLARED < len(out) < 0.55 * DECLARED
    return id, out


def shown(service: Service, id: str) -> Any:
    """The quality that the job shows."""
    ended = sa.select(job_event.c.data).where(job_event.c.job_id == id, job_event.c.name == "job.succeeded")
    data = service.one(ended)[0]
    return None if data is None else data["quality"]


def test_what_is_held_out_is_measured_on_and_never_trained_on(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at where rows are loaded, and where the loop gets its records: every method has them from there."""
    read: list[set[str]] = []
    encoded, real = module.Training.encoded, module.run

    def reading(self: Any, assignment: Any, built: Any, rows: Any) -> Any:
        read.append(set(rows.columns["text"]))
        return encoded(self, assignment, built, rows)

    def running(**given: Any) -> Any:
        assert len(given["records"]) + len(given["held_out"].records) == DECLARED
        assert len(given["held_out"].records) == len(out)
        return real(**given)

    monkeypatch.setattr(module.Training, "encoded", reading)
    monkeypatch.setattr(module, "run", running)
    id, out = measured(service)
    go(id)
    assert service.status(id) == "succeeded"
    assert (read[0] & out, read[1]) == (set(), out)
    assert authorised(service, id) == [STEPS, 1]
    assert wrong(service, id) == []
    quality, told = shown(service, id), report(service, id)
    assert quality["file"] == service.eval_file
    private = quality["private"]
    assert (private["metric"], private) == ("accuracy", told["metrics"]["measured"])
    assert abs(private["evaluated"] - len(out)) < 20
    # Rows alike: what a public file says of the same model is within what both errors allow.
    assert abs(private["value"] - quality["value"]) < 4 * (private["standard_error"] + quality["standard_error"])
    assert [(p["name"], p["trains"]) for p in told["privacy"]["phases"]] == [("train", "lora"), ("measure", "nothing")]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", ["full", "bitfit", "prune", "zo"])
@pytest.mark.slow
def test_users_are_held_out_whole_whatever_the_method(service: Service, go: Attempt, method: str) -> None:
    """And a job without a public file shows the private figure."""
    service.eval_file = None  # type: ignore[assignment]
    id, _ = measured(service, users=True, method=method)
    go(id)
    assert (service.status(id), authorised(service, id)[-1]) == ("succeeded", 1)
    assert wrong(service, id) == []
    quality = shown(service, id)
    assert (quality["source"], quality["file"], quality["metric"]) == ("private", None, "accuracy")
    assert quality["value"] == quality["private"]["value"]
    assert 0 < quality["evaluated"] < USERS


@pytest.mark.sampled(1)
@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize("method", ["lora", "full", "bitfit", "prune", "zo", "side", "reversible"])
@pytest.mark.parametrize("everybody", [False, True])
def test_a_part_that_chance_left_empty_is_trained_and_measured_like_any(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch, method: str, users: bool, everybody: bool
) -> None:
    """Few units may all come to lie in one part: a job that fails for it would tell how they lie."""
    parted = module.parted
    monkeypatch.setattr(module, "parted", lambda rows, budget, share: parted(rows, budget, float(everybody)))
    id, _ = measured(service, users=users, method=method)
    go(id)
    assert service.status(id) == "succeeded"
    assert authorised(service, id) == [STEPS, 1]
    assert shown(service, id).get("private") is None or everybody


def test_a_file_without_lots_is_refused_before_anything_is_paid(service: Service, go: Attempt) -> None:
    id, _ = measured(service, lots=False)
    go(id)
    assert service.status(id) == "failed"
    assert authorised(service, id) == [0, 0]


KILLS: dict[str, tuple[Callable[[pytest.MonkeyPatch], Any], bool]] = {
    "training is over, the look not yet paid for": (lambda patch: _dies(patch, "_authorise", 1), True),
    "the look is paid for, nothing noised": (lambda patch: after(patch, 1, 1, lambda: None, then_die=True), False),
    "the sums are kept, nothing is published": (lambda patch: _dies(patch, "_publish", 0), True),
}
"""Where a worker is killed, and whether there is a figure in the end."""


def _dies(patch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """In this method of Training; asked to authorise, in this phase."""
    real = getattr(module.Training, name)

    def dying(self: Any, *given: Any) -> Any:
        if name == "_publish" or given[1] == at:
            raise Died
        return real(self, *given)

    patch.setattr(module.Training, name, dying)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", ["lora", "prune"])
@pytest.mark.parametrize("moment", KILLS)
def test_a_worker_killed_around_the_look_is_followed_by_one_that_takes_none_for_free(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch, moment: str, method: str
) -> None:
    """One look at most is paid for and one figure at most leaves; sums that were kept are those that are shown."""
    service.eval_file = None  # type: ignore[assignment]
    id, _ = measured(service, method=method)
    dies, figure = KILLS[moment]
    saved: list[bytes] = []
    with monkeypatch.context() as patch:
        keep = module.Training.save
        patch.setattr(module.Training, "save", lambda self, data: (saved.append(data), keep(self, data))[1])
        dies(patch)
        with pytest.raises(Died):
            go(id)
    lose(service)
    seen: list[Any] = []
    told = module.Training._measured
    monkeypatch.setattr(
        module.Training,
        "_measured",
        lambda self, assignment, phase, sums: (seen.append(sums), told(self, assignment, phase, sums))[1],
    )
    go(id)
    assert service.status(id) == "succeeded"
    assert authorised(service, id) == [STEPS, 1]
    assert wrong(service, id) == []
    assert (shown(service, id) is not None, seen[0] is not None) == (figure, figure)
    if moment == "the sums are kept, nothing is published":
        assert tuple(load(saved[-1])["weight/tacit.measured"].tolist()) == seen[0]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", ["lora", "federated-lm"])
def test_a_language_model_tells_the_perplexity_of_losses_that_were_cut(
    service: Service, engine: sa.Engine, settings: WorkerSettings, tmp_path: Path, method: str
) -> None:
    """By records, or by users whose own training is what is drawn."""
    tiny.save_writer(tmp_path / "writer")
    service.model = tmp_path / "writer"
    service.eval_file = None  # type: ignore[assignment]
    users = method == "federated-lm"
    id, out = measured(service, users=users, method=method, task="text", learning_rate=0.05)
    attempt(engine, settings.model_copy(update={"models": {"tiny": service.model}}), id)
    assert (service.status(id), authorised(service, id)) == ("succeeded", [STEPS, 1])
    private = shown(service, id)["private"]
    assert (private["metric"], private["most_loss"]) == ("perplexity", 3.1)
    assert 1 < private["value"] <= exp(3.1)
    assert 0 < private["noise_error"] < private["standard_error"]
    assert abs(private["evaluated"] - (USERS * len(out) / DECLARED if users else len(out))) < 20
