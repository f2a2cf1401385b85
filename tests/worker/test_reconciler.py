"""Jobs that nobody works on are found again, or brought to their end."""

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.jobs.hints import waiting
from domain.kit.settings import WorkerSettings
from domain.kit.tables import checkpoint, job
from ledger import policy
from ledger.tables import reservation
from ledger.work import Lease, authorise, claim, drop, request_stop
from tests.conftest import MASTER_KEY
from tests.worker.books import wrong
from tests.worker.federation import Federation, rehearse_once
from tests.worker.service import Service
from worker import ends
from worker.checkpoints import save
from worker.federated import coordinator
from worker.federated import silo as silo_module
from worker.reconciler import GAVE_UP, reconcile

HOUR = sa.text("interval '1 hour'")


class Desk:
    """A reconciler's login and settings."""

    def __init__(self, service: Service, **more: object) -> None:
        self.service = service
        self.engine = sa.create_engine(service.database.worker_url, poolclass=sa.NullPool)
        self.settings = WorkerSettings(
            database_url=service.database.worker_url,
            blobs=str(service.folder / "blobs"),
            master_key=MASTER_KEY,
            **{"broker_url": service.broker, "lease_seconds": 10, **more},
        )

    def look(self) -> int:
        """How many hints one look sends."""
        before = waiting(self.service.broker)
        reconcile(self.engine, self.service.store, self.settings)
        return waiting(self.service.broker) - before

    def claim(self, id: str, seconds: float = 60) -> Lease:
        with self.engine.begin() as c:
            lease = claim(c, id, "test", seconds)
        assert lease is not None
        return lease

    def drop(self, lease: Lease) -> None:
        with self.engine.begin() as c:
            drop(c, lease)

    def age(self, id: str) -> None:
        """Let an hour go by since the last hint."""
        with self.engine.begin() as c:
            c.execute(sa.update(job).where(job.c.id == id).values(hinted_at=job.c.hinted_at - HOUR - HOUR))


def test_a_hint_that_was_never_sent_is_sent_once(service: Service) -> None:
    desk = Desk(service)
    id = service.submit(hint=False)
    assert desk.look() == 1
    assert desk.look() == 0
    desk.age(id)
    assert desk.look() == 1  # perhaps it was lost


def test_a_job_is_left_alone_while_it_is_leased_and_hinted_at_as_soon_as_the_lease_ends(service: Service) -> None:
    desk = Desk(service)
    id = service.submit()
    lease = desk.claim(id)
    desk.age(id)
    assert desk.look() == 0
    desk.drop(lease)
    assert desk.look() == 1
    assert desk.look() == 0


def test_a_job_is_hinted_at_as_soon_as_its_budget_thaws(service: Service) -> None:
    desk = Desk(service)
    service.submit()
    with service.api.begin() as c:
        policy.freeze(c, "budget_a", "a complaint")
    assert desk.look() == 0  # meanwhile its hint is dropped
    with service.admin.begin() as c:
        policy.thaw(c, Ed25519PrivateKey.generate(), "budget_a", "looked into")
    assert desk.look() == 1


def test_while_the_queue_moves_hints_do_not_pile_up(service: Service) -> None:
    desk = Desk(service, lease_seconds=3)
    ids = [service.submit() for _ in range(3)]
    with desk.engine.begin() as c:
        c.execute(
            sa.update(job).where(job.c.id.in_(ids)).values(hinted_at=job.c.hinted_at - sa.text("interval '5 minutes'"))
        )
    assert desk.look() == 0


def test_attempts_that_get_nowhere_are_spaced_out_and_end(service: Service) -> None:
    desk = Desk(service, max_attempts=12, reconcile_seconds=1)
    id = service.submit()
    for _ in range(11):
        desk.drop(desk.claim(id))
    assert desk.look() == 0  # the next try is minutes away
    desk.drop(desk.claim(id))
    desk.look()
    assert service.status(id) == "failed"
    assert not any(service.settlement(id).spent_change)
    assert service.one(sa.select(job.c.error))[0]["code"] == "worker_lost"


def test_attempts_that_kept_a_checkpoint_do_not_count(service: Service) -> None:
    desk = Desk(service, max_attempts=3)
    id = service.submit()
    for _ in range(5):
        lease = desk.claim(id)
        with desk.engine.begin() as c:
            authorise(c, lease, 0, 1)
            c.execute(
                checkpoint.insert().values(
                    job_id=id, fence=lease.fence, step=lease.fence, blob=f"jobs/{id}/checkpoints/b"
                )
            )
        desk.drop(lease)
        assert desk.look() == 1
    for _ in range(3):
        desk.drop(desk.claim(id))
    desk.look()
    assert service.status(id) == "failed"
    assert service.settlement(id).spent_change == service.ledger(id).reserved  # it had begun: the whole price
    assert service.one(sa.select(job.c.error))[0]["code"] == "training_failed"


def test_a_cancelled_job_without_a_worker_is_settled_for_what_was_authorised(service: Service) -> None:
    desk = Desk(service)
    fresh, begun = service.submit(hint=False), service.submit(hint=False)
    lease = desk.claim(begun)
    with desk.engine.begin() as c:
        authorise(c, lease, 0, 5)
    save(desk.engine, service.store, lease, 5, b"as far as it got")
    assert service.leftovers(begun)
    with service.api.begin() as c:
        request_stop(c, fresh)
        request_stop(c, begun)
    desk.look()
    assert (service.status(fresh), service.status(begun)) == ("cancelled", "queued")  # a live lease is respected
    desk.drop(lease)
    desk.look()
    assert service.status(begun) == "cancelled"
    assert not service.leftovers(begun)
    assert not any(service.settlement(fresh).spent_change)
    assert service.settlement(begun).spent_change == [5 * cost for cost in service.ledger(begun).step_cost]


def test_a_job_that_outlived_its_reservation_is_cancelled(service: Service) -> None:
    desk = Desk(service)
    id = service.submit(hint=False)
    with service.admin.begin() as c:
        c.execute(sa.update(reservation).values(expires_at=sa.func.clock_timestamp()))
    desk.look()
    assert service.status(id) == "cancelled"
    assert not any(service.settlement(id).spent_change)


def test_without_a_broker_the_hint_is_still_owed(service: Service) -> None:
    id = service.submit(hint=False)
    away = Desk(service, broker_url="redis+socket:///nowhere/redis?virtual_host=0")
    reconcile(away.engine, service.store, away.settings)
    assert service.one(sa.select(job.c.hinted_at).where(job.c.id == id))[0] is None
    assert Desk(service).look() == 1


@pytest.fixture
def federation(service: Service, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> Federation:
    """Nobody lingers, and no hint but the reconciler's goes out."""
    rehearse_once(monkeypatch)
    monkeypatch.setattr("worker.federated.waiting.LINGER", -1.0)
    for module in (coordinator, silo_module):
        monkeypatch.setattr(module, "hint", lambda *_: None)
    return Federation(service, settings)


def test_a_silo_is_hinted_at_while_a_round_waits_for_it_and_the_federated_job_while_none_does(
    service: Service, federation: Federation
) -> None:
    desk = Desk(service)
    job_id = federation.submit(silos=2)

    def hinted() -> set[str]:
        """Whom one look sends a hint for."""
        before = sa.select(sa.func.clock_timestamp())
        now = service.one(before)[0]
        assert desk.look() >= 0
        return {row.id for row in service.all(sa.select(job.c.id).where(job.c.hinted_at > now))}

    silos = set(federation.silos(job_id).values())
    assert hinted() == {job_id}
    federation.go(job_id)
    assert hinted() == silos
    assert hinted() == set()
    for each in silos:
        federation.go(each)
    assert hinted() == {job_id}


def test_silos_of_a_federated_job_that_has_ended_are_ended_without_a_worker(
    service: Service, federation: Federation
) -> None:
    """Settled with what was authorised: as cancelled where it failed, as having taken part where it came to its end."""
    desk = Desk(service)
    failed = federation.submit(silos=2)
    of_failed = federation.silos(failed)
    federation.round(failed, without=["silo-2"])
    with desk.engine.begin() as c:
        ends.fail(c, failed, None, GAVE_UP)
    desk.look()
    assert [federation.status(each) for each in of_failed.values()] == ["cancelled"] * 2
    assert [federation.authorised(each) for each in of_failed.values()] == [1, 0]

    ended = federation.submit(silos=2, least_silos=1)
    of_ended = federation.silos(ended)
    federation.round(ended)
    federation.round(ended, without=["silo-2"])
    federation.overdue(ended)
    federation.go(ended)
    assert federation.status(ended) == "succeeded"
    assert federation.status(of_ended["silo-2"]) == "running"
    desk.look()
    assert [federation.status(each) for each in of_ended.values()] == ["succeeded"] * 2
    for each in (*of_failed.values(), *of_ended.values()):
        assert wrong(service, each) == []
    assert all(not any(reserved) for _, reserved in federation.balances().values())
