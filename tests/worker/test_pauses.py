"""Pauses: the worker keeps a checkpoint and lets go, nothing is settled; what else happens meanwhile has a right end."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from domain.jobs import pauses
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job, job_event
from dpcore.run import Outcome
from ledger import policy, work
from ledger.errors import PauseRequested, translated
from ledger.tables import authorisation, entry, reservation
from ledger.tables import work as work_table
from tests.worker.service import PATIENCE, Service, until
from tests.worker.test_job import adapter_moved
from tests.worker.test_reconciler import Desk
from worker import ends
from worker import training as module
from worker.attempt import attempt
from worker.reconciler import reconcile


class Office(Desk):
    """A worker's and an analyst's hands."""

    def __init__(self, service: Service, **more: object) -> None:
        super().__init__(service, **({"models": {"tiny": service.model}, "device": "cpu", "lease_seconds": 60} | more))
        self.settings: WorkerSettings

    def pause(self, id: str) -> None:
        with self.service.api.begin() as c:
            pauses.pause(c, id)

    def resume(self, id: str) -> bool:
        with self.service.api.begin() as c:
            return pauses.resume(c, id)

    def begun(self) -> tuple[str, work.Lease]:
        """A job with 5 authorised steps, under a lease."""
        id = self.service.submit(hint=False)
        lease = self.claim(id)
        with self.engine.begin() as c:
            c.execute(sa.update(job).where(job.c.id == id).values(status="running"))
            work.authorise(c, lease, 0, 5)
        return id, lease

    def lose(self) -> None:
        """The worker dies; its lease runs out."""
        with self.engine.begin() as c:
            c.execute(sa.update(work_table).values(lease_until=sa.func.clock_timestamp()))

    def reconcile(self) -> None:
        reconcile(self.engine, self.service.store, self.settings)

    def shown(self, id: str) -> tuple[str, str | None]:
        row = self.service.one(sa.select(job.c.status, job.c.status_detail).where(job.c.id == id))
        return row.status, row.status_detail

    def names(self, id: str) -> list[str]:
        found = sa.select(job_event.c.name).where(job_event.c.job_id == id).order_by(job_event.c.seq)
        return [row.name for row in self.service.all(found)]

    def settled(self, id: str) -> bool:
        of_job = entry.join(reservation, reservation.c.id == entry.c.reservation_id)
        ends = sa.select(entry.c.seq).select_from(of_job).where(reservation.c.job_id == id, entry.c.kind == "settle")
        return bool(self.service.all(ends))

    def require_price_of(self, id: str, steps: int) -> None:
        paid = self.service.ledger(id)
        assert paid.steps_authorised == steps
        assert self.service.settlement(id).spent_change == [steps * cost for cost in paid.step_cost]


@pytest.fixture
def office(service: Service, soon_heard: None) -> Office:
    return Office(service)


def test_a_pause_keeps_a_checkpoint_and_a_resume_goes_on_from_it(
    service: Service, office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tacit.worker")
    id = service.submit(steps=200, hint=False)
    at_work = threading.Thread(target=attempt, args=(office.engine, office.settings, id))
    at_work.start()
    until(lambda: service.authorised(id) > 20, PATIENCE, lambda: "nothing was authorised")
    office.pause(id)
    assert office.shown(id) == ("running", "pausing")
    at_work.join(PATIENCE)
    assert office.shown(id) == ("queued", "paused")
    kept = service.authorised(id)
    assert kept < 200
    assert service.leftovers(id)
    assert not office.settled(id)
    assert any(service.one(sa.text("SELECT reserved FROM ledger.budget")).reserved)  # type: ignore[arg-type]
    assert office.look() == 0
    attempt(office.engine, office.settings, id)  # a hint that came late
    assert service.authorised(id) == kept
    assert office.resume(id)
    assert office.look() == 1
    attempt(office.engine, office.settings, id)
    assert service.status(id) == "succeeded"
    office.require_price_of(id, service.authorised(id))
    assert adapter_moved(service, id)
    assert "goes on from step 0 " in caplog.text
    assert caplog.text.count(f"job {id}: goes on from step") == 2
    names = [n for n in office.names(id) if n != "steps.authorised"]
    assert names == ["job.started", "job.pausing", "job.paused", "job.resumed", "job.succeeded"]


def test_the_database_itself_refuses_to_claim_or_authorise(service: Service, office: Office) -> None:
    id, lease = office.begun()
    office.pause(id)
    reserved = service.one(sa.select(reservation.c.id).where(reservation.c.job_id == id)).id
    more = authorisation.insert().values(reservation_id=reserved, ordinal=0, fence=lease.fence, steps=1)
    with pytest.raises(PauseRequested), translated(), office.engine.begin() as c:
        c.execute(more)
    office.lose()
    taken = sa.update(work_table).where(work_table.c.job_id == id).values(fence=work_table.c.fence + 1)
    with pytest.raises(PauseRequested), translated(), office.engine.begin() as c:
        c.execute(taken)
    since = service.one(sa.select(work_table.c.paused_at)).paused_at
    office.pause(id)  # asking again prolongs nothing
    assert service.one(sa.select(work_table.c.paused_at)).paused_at == since
    assert service.authorised(id) == 5


def trains(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """A run that authorises 2 steps, then something happens, then it goes on until it is stopped."""

    def train(*, authorise: Callable[[int, int], int], should_stop: Callable[[], bool], **_: Any) -> Outcome:
        authorise(0, 2)
        meanwhile()
        if not should_stop():
            authorise(0, 2)
        return Outcome(2, "stopped")

    monkeypatch.setattr(module, "run", train)


def test_a_budget_that_freezes_while_pausing(service: Service, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile() -> None:
        office.pause(id)
        with service.api.begin() as c:
            policy.freeze(c, "budget_a", "a complaint")

    id = service.submit(hint=False)
    trains(monkeypatch, meanwhile)
    attempt(office.engine, office.settings, id)
    assert office.shown(id) == ("queued", "paused")
    assert (service.authorised(id), office.settled(id)) == (2, False)
    assert office.resume(id)
    assert office.look() == 0  # it waits for the budget, as any job does
    assert office.shown(id) == ("queued", None)


def test_a_drain_while_pausing(service: Service, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile() -> None:
        office.pause(id)
        monkeypatch.setattr(module, "draining", lambda: True)

    id = service.submit(hint=False)
    trains(monkeypatch, meanwhile)
    attempt(office.engine, office.settings, id)
    assert office.shown(id) == ("queued", "paused")
    assert (service.authorised(id), office.settled(id)) == (2, False)


def test_a_cancel_while_pausing(service: Service, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile() -> None:
        office.pause(id)
        with service.api.begin() as c:
            work.request_stop(c, id)

    id = service.submit(hint=False)
    trains(monkeypatch, meanwhile)
    attempt(office.engine, office.settings, id)
    assert office.shown(id) == ("cancelled", None)
    office.require_price_of(id, 2)


def test_a_resume_before_the_worker_has_let_go(
    service: Service, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> None:
        office.pause(id)
        assert office.resume(id)
        monkeypatch.setattr(module, "draining", lambda: True)  # stands for the heartbeat that heard the pause

    id = service.submit(hint=False)
    trains(monkeypatch, meanwhile)
    attempt(office.engine, office.settings, id)
    assert office.shown(id) == ("running", None)
    assert office.look() == 1  # whoever let go is followed by the next


def test_a_worker_killed_while_pausing(service: Service, office: Office) -> None:
    id, _ = office.begun()
    office.pause(id)
    office.reconcile()
    assert office.shown(id) == ("running", "pausing")  # a live lease is respected
    office.lose()
    for _ in range(2):
        office.reconcile()
        assert office.shown(id) == ("queued", "paused")
    assert office.names(id).count("job.paused") == 1
    assert (service.authorised(id), office.settled(id)) == (5, False)


def test_after_seven_days_a_paused_job_is_cancelled_at_the_price_of_its_steps(service: Service, office: Office) -> None:
    id, _ = office.begun()
    office.pause(id)
    office.lose()
    for days in (6, 8):
        with service.admin.begin() as c:
            c.execute(sa.text("SET LOCAL session_replication_role = replica"))  # the trigger lets nobody change it
            since = sa.func.clock_timestamp() - sa.text(f"interval '{days} days'")
            c.execute(sa.update(work_table).values(paused_at=since))
        office.reconcile()
        assert office.settled(id) == (days > 7)
    assert office.shown(id) == ("cancelled", "expired")
    office.require_price_of(id, 5)
    last = service.all(sa.select(job_event).where(job_event.c.job_id == id).order_by(job_event.c.seq))[-1]
    assert (last.name, last.data) == ("job.expired", {"code": "paused_too_long"})


def test_attempts_that_were_paused_are_no_failures(service: Service) -> None:
    office = Office(service, max_attempts=3)
    id = service.submit(hint=False)
    for _ in range(5):
        lease = office.claim(id)
        office.pause(id)
        ends.let_go(office.engine, lease)
        office.drop(lease)
        office.resume(id)
        office.reconcile()
    assert office.shown(id) == ("queued", None)
