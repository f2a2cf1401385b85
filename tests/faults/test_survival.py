"""What the matrix rests on, one promise each: limits, full disks, clocks and memory, in this process."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from domain.kit.faults import fault
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job
from dpcore.run import Outcome
from ledger import work
from ledger.tables import work as work_table
from tests.faults.injections import jump_database
from tests.worker.service import Service, until
from tests.worker.test_pauses import Office
from worker import training as module
from worker.attempt import attempt
from worker.lease import Heartbeat


@pytest.fixture
def office(service: Service) -> Office:
    return Office(service)


def error(service: Service, id: str) -> Any:
    return service.one(sa.select(job.c.error).where(job.c.id == id)).error


def with_limit(office: Office, seconds: float) -> WorkerSettings:
    """A long lease: a process that does not stop is killed a lease's length after its limit."""
    return office.settings.model_copy(update={"job_seconds": seconds, "lease_seconds": 60})


def test_a_job_past_its_time_limit_fails_at_the_price_of_a_failure_and_says_why(
    service: Service, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*, authorise: Callable[[int, int], int], should_stop: Callable[[], bool], **_: Any) -> Outcome:
        authorise(0, 2)
        assert not should_stop()
        monkeypatch.setattr(Heartbeat, "overtime", 0.0)
        assert should_stop()
        return Outcome(2, "stopped")

    monkeypatch.setattr(module, "run", train)
    id = service.submit(hint=False)
    attempt(office.engine, with_limit(office, 1000.0), id)
    assert (service.status(id), error(service, id)["code"]) == ("failed", "time_limit")
    assert fault("time_limit").of == "user"
    assert service.settlement(id).spent_change == service.ledger(id).reserved


def test_the_time_of_earlier_attempts_counts_and_what_never_began_is_free(service: Service, office: Office) -> None:
    id = service.submit(hint=False)
    lease = office.claim(id)
    with office.engine.begin() as c:
        assert work.count(c, lease, 50.0) == 50.0
    office.drop(lease)
    attempt(office.engine, with_limit(office, 20.0), id)
    assert (service.status(id), error(service, id)["code"]) == ("failed", "time_limit")
    assert not any(service.settlement(id).spent_change)


def test_the_time_in_hand_is_counted_by_a_clock_that_nobody_sets(service: Service, office: Office) -> None:
    lease = office.claim(service.submit(hint=False))
    with Heartbeat(office.engine, lease, 2, time.monotonic() - 1, worked=999.5, limit=1000) as heartbeat:
        assert heartbeat.overtime >= 0.5
        until(lambda: service.one(sa.select(work_table.c.seconds)).seconds >= 1, 60, lambda: "no beat was counted")


def test_a_disk_without_room_for_a_checkpoint_costs_no_step(service: Service, office: Office) -> None:
    id = service.submit(steps=20, hint=False)
    attempt(office.engine, office.settings.model_copy(update={"disk_reserve": 2**60}), id)
    assert (service.status(id), service.authorised(id)) == ("running", 0)
    attempt(office.engine, office.settings, id)
    assert service.status(id) == "succeeded"
    assert service.authorised(id) == 20


def test_a_database_that_is_away_while_a_blob_is_opened_fails_no_job(
    service: Service, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise sa.exc.OperationalError("SELECT", None, Exception("server closed the connection"))

    id = service.submit(hint=False)
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_rows", away)
        attempt(office.engine, office.settings, id)
    assert service.status(id) == "running"


def test_memory_that_runs_out_before_training_is_called_so_and_is_free(
    service: Service, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError

    id = service.submit(hint=False)
    monkeypatch.setattr(module, "read_rows", full)
    attempt(office.engine, office.settings, id)
    assert error(service, id)["code"] == "out_of_memory"
    assert not any(service.settlement(id).spent_change)


def test_memory_that_runs_out_in_training_ends_the_attempt_and_not_the_job(
    service: Service, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rehearsal had room for the largest micro-batch, so that it is somebody else's doing and goes by."""

    def train(*, authorise: Callable[[int, int], int], **_: Any) -> Outcome:
        authorise(0, 2)
        raise MemoryError

    id = service.submit(steps=20, hint=False)
    with monkeypatch.context() as patch:
        patch.setattr(module, "run", train)
        attempt(office.engine, office.settings, id)
    assert (service.status(id), service.authorised(id)) == ("running", 2)
    attempt(office.engine, office.settings, id)
    assert service.status(id) == "succeeded"
    office.require_price_of(id, 20)


def test_a_database_clock_that_is_set_back_leaves_no_lease_behind(service: Service, office: Office) -> None:
    """The worker dies, the clock goes back a day: its lease would hold for a day, and so would the last hint."""
    id = service.submit()
    office.claim(id)
    jump_database(service, -86400)
    assert office.look() == 1
    assert office.look() == 0
    office.claim(id)
