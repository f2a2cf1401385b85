"""Attempts in this process: what they may run, what they charge, and what an analyst gets to see of a failure."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from domain.jobs.releases import publish
from domain.kit.settings import WorkerSettings
from domain.kit.tables import checkpoint, job, job_event
from dpcore.engine.errors import UnseenParameter
from dpcore.run import Outcome
from ledger.errors import StaleFence
from ledger.work import authorise, claim, drop, request_stop
from tests.worker import tiny
from tests.worker.service import Service
from worker import training as module
from worker.attempt import attempt

SECRET = "Erika Mustermann, diabetes"


def trains_like(monkeypatch: pytest.MonkeyPatch, train: Callable[..., Outcome]) -> None:
    monkeypatch.setattr(module, "run", train)


def test_what_the_reservation_did_not_pay_for_is_not_run(
    service: Service, engine: sa.Engine, settings: WorkerSettings
) -> None:
    id = service.submit(sigma=2.0, reserved_sigma=3.0, hint=False)
    attempt(engine, settings, id)
    assert failure(service, id)["code"] == "plan_mismatch"
    assert service.authorised(id) == 0
    assert not any(service.settlement(id).spent_change)


@pytest.mark.parametrize(
    ("asked", "code", "word"),
    [
        ({"model": "no-such-model"}, "model_unavailable", "no-such-model"),
        ({"options": {"target_modules": ["nowhere"]}}, "not_trainable", "nowhere"),
    ],
)
def test_what_cannot_be_built_fails_for_free_and_says_why(
    service: Service, engine: sa.Engine, settings: WorkerSettings, asked: dict[str, Any], code: str, word: str
) -> None:
    id = service.submit(**asked, hint=False)
    attempt(engine, settings, id)
    error = failure(service, id)
    assert error["code"] == code
    assert word in error["message"]
    assert not any(service.settlement(id).spent_change)


def test_a_failure_in_training_costs_everything_and_shows_no_cause(
    service: Service,
    engine: sa.Engine,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def train(*, authorise: Callable[[int, int], int], **_: Any) -> Outcome:
        authorise(0, 2)
        assert service.authorised(id) == 2  # charged for everyone to see before a step runs
        raise RuntimeError(SECRET) from ValueError(SECRET)

    trains_like(monkeypatch, train)
    id = service.submit(hint=False)
    with caplog.at_level(logging.DEBUG):
        attempt(engine, settings, id)
    require_full_price_and_silence(service, id, caplog)
    assert "RuntimeError" in caplog.text  # the operator's log tells type and place
    assert service.authorised(id) == 2


def test_rows_that_cannot_be_read_cost_as_much_as_rows_that_cannot_be_trained_on(
    service: Service, engine: sa.Engine, settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    broken = service.add_file([SECRET, "iron"], [len(tiny.LABELS), 1], private=True)
    id = service.submit(train_file=broken, hint=False)
    with caplog.at_level(logging.DEBUG):
        attempt(engine, settings, id)
    require_full_price_and_silence(service, id, caplog)


def test_a_job_that_lost_every_step_to_crashes_fails_instead_of_releasing_an_untrained_adapter(
    service: Service, engine: sa.Engine, settings: WorkerSettings
) -> None:
    id = service.submit(steps=1, hint=False)
    with engine.begin() as c:
        dead = claim(c, id, "somebody", 60)
        assert dead is not None
        assert authorise(c, dead, 0, 1) == 1
        drop(c, dead)
    attempt(engine, settings, id)
    assert failure(service, id)["code"] == "training_failed"


def test_running_out_of_memory_in_the_rehearsal_is_free(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(**_: Any) -> Outcome:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    trains_like(monkeypatch, train)
    id = service.submit(hint=False)
    attempt(engine, settings, id)
    assert failure(service, id)["code"] == "out_of_memory"
    assert not any(service.settlement(id).spent_change)


def test_a_refusal_of_the_rehearsal_says_what_the_engine_found(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(**_: Any) -> Outcome:
        raise UnseenParameter(f"no per-example gradient for trainable parameters: gate{' and another' * 200}")

    trains_like(monkeypatch, train)
    id = service.submit(hint=False)
    attempt(engine, settings, id)
    error = failure(service, id)
    assert error["code"] == "not_trainable"
    assert error["message"].startswith(
        "The method cannot train this model exactly: no per-example gradient for trainable parameters: gate"
    )
    assert len(error["message"]) < 600
    events = service.all(sa.select(job_event).where(job_event.c.job_id == id))
    assert error["message"] in [event.message for event in events]
    assert not any(service.settlement(id).spent_change)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, IndexError, KeyError])
def test_what_the_records_may_have_said_before_the_first_step_is_not_repeated(
    service: Service,
    engine: sa.Engine,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    def train(*, records: Any, **_: Any) -> Outcome:
        raise kind(f"{SECRET}, one of {len(records)}") from UnseenParameter(SECRET)

    trains_like(monkeypatch, train)
    id = service.submit(hint=False)
    with caplog.at_level(logging.DEBUG):
        attempt(engine, settings, id)
    message = failure(service, id)["message"]
    assert message == f"The method cannot train this model exactly: {kind.__name__}."
    seen = [*service.one(sa.select(job).where(job.c.id == id)), *service.all(sa.select(job_event))]
    for words in (SECRET, "one of"):
        assert words not in str(seen) + caplog.text


def test_an_authorisation_without_an_answer_is_charged_and_its_steps_do_not_run(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def train(*, authorise: Callable[[int, int], int], **_: Any) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setattr(engine.dialect, "do_commit", commit_without_an_answer)
            ran.append(authorise(0, 2))
        return Outcome(2, "finished")

    def commit_without_an_answer(connection: Any) -> None:
        connection.commit()
        raise engine.dialect.dbapi.OperationalError("server closed the connection unexpectedly")  # type: ignore[union-attr]

    trains_like(monkeypatch, train)
    id = service.submit(hint=False)
    attempt(engine, settings, id)
    assert ran == []
    assert service.authorised(id) == 2
    assert service.status(id) == "running"  # nothing is settled: the next attempt goes on


def test_a_late_worker_publishes_nothing_and_keeps_no_checkpoint(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*, save: Callable[[bytes], None], **_: Any) -> Outcome:
        with engine.begin() as c:  # the lease runs out, somebody else claims the job
            c.execute(sa.text("UPDATE ledger.work SET lease_until = clock_timestamp()"))
        with engine.begin() as c:
            others.append(claim(c, id, "somebody else", 60))
        save(real_checkpoint)
        raise AssertionError("a stale checkpoint was taken")

    others: list[Any] = []
    id = service.submit(steps=20, hint=False)
    with monkeypatch.context() as patch:
        real_checkpoint = taken_from_a_real_run(service, engine, settings, patch)
        trains_like(patch, train)
        attempt(engine, settings, id)
    assert service.status(id) == "running"
    assert service.all(sa.select(checkpoint).where(checkpoint.c.job_id == id)) == []
    with pytest.raises(StaleFence), engine.begin() as c:
        publish(c, type(others[0])(id, others[0].fence - 1), "tenant_a", [])
    assert service.released(id) == {}


def test_a_stop_is_heard_before_the_first_step(service: Service, engine: sa.Engine, settings: WorkerSettings) -> None:
    id = service.submit(hint=False)
    with service.api.begin() as c:
        request_stop(c, id)
    attempt(engine, settings, id)
    assert service.status(id) == "cancelled"
    assert service.authorised(id) == 0
    assert not any(service.settlement(id).spent_change)


def test_only_public_files_are_evaluated_on(service: Service, engine: sa.Engine, settings: WorkerSettings) -> None:
    service.eval_file = service.train_file
    id = service.submit(hint=False)
    attempt(engine, settings, id)
    assert failure(service, id)["code"] == "not_trainable"


def taken_from_a_real_run(
    service: Service, engine: sa.Engine, settings: WorkerSettings, patch: pytest.MonkeyPatch
) -> bytes:
    """A checkpoint that another job saved."""
    kept: list[bytes] = []
    with patch.context() as inner:
        inner.setattr(module.checkpoints, "save", lambda *arguments: kept.append(arguments[-1]))
        attempt(engine, settings, service.submit(steps=2, hint=False))
    return kept[-1]


def failure(service: Service, id: str) -> dict[str, Any]:
    row = service.one(sa.select(job).where(job.c.id == id))
    assert row.status == "failed"
    error: dict[str, Any] = row.error
    return error


def require_full_price_and_silence(service: Service, id: str, caplog: pytest.LogCaptureFixture) -> None:
    """The job failed at the price of its whole reservation, and its cause is nowhere."""
    assert failure(service, id)["code"] == "training_failed"
    paid = service.ledger(id)
    assert service.settlement(id).spent_change == paid.reserved
    assert paid.reserved == [paid.steps_max * cost for cost in paid.step_cost]
    seen = [*service.one(sa.select(job).where(job.c.id == id)), *service.all(sa.select(job_event))]
    for words in (SECRET, "Error", "Traceback"):
        assert words not in str(seen)
    assert SECRET not in caplog.text
