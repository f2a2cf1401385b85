"""A hint costs a process only where there is a job to be had, and no hint is taken before a process stands ready."""

from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_client
import sqlalchemy as sa

from domain.jobs.hints import QUEUE, redis_url, send_hint, waiting
from domain.kit.settings import WorkerSettings
from ledger import policy, work
from ledger.tables import reservation
from ledger.tables import work as work_table
from tests.worker.service import PATIENCE, Service, Worker, until
from tests.worker.test_pauses import Office
from worker import ends
from worker import intake as module
from worker.app import make_app
from worker.intake import only_worthwhile
from worker.lease import worth_claiming


@pytest.fixture
def office(service: Service) -> Office:
    return Office(service)


def cancel(office: Office, id: str) -> str:
    with office.engine.begin() as c:
        ends.cancel(c, id, None)
    return id


def not_to_be_had(service: Service, office: Office) -> dict[str, str]:
    """A job of each kind that a hint may come too late or too early for."""
    jobs = {kind: service.submit(hint=False) for kind in ("cancelled", "paused", "waiting", "leased", "stopped")}
    cancel(office, jobs["cancelled"])
    office.pause(jobs["paused"])
    with service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))  # in place of a policy and a steward
        c.execute(sa.update(reservation).where(reservation.c.job_id == jobs["waiting"]).values(waits=True))
    office.claim(jobs["leased"], 600)
    with service.api.begin() as c:
        work.request_stop(c, jobs["stopped"])
    return {**jobs, "unknown": "ftjob-unknown"}


def first_process(worker: Worker, *, after: int | None = None) -> int:
    """The pool's process, or the one that comes after another."""
    until(lambda: worker.child() not in (None, after), PATIENCE, lambda: "no process was started")
    child = worker.child()
    assert child is not None
    return child


def process_that_takes(service: Service, id: str, seen: Callable[[], object] = lambda: None) -> int:
    """The one that claims the job; `seen` is called until then."""
    owner = sa.select(work_table.c.owner).where(work_table.c.job_id == id)

    def claimed() -> bool:
        seen()
        return service.one(owner).owner is not None

    until(claimed, PATIENCE, lambda: f"nobody took {id}")
    return int(service.one(owner).owner.rpartition(":")[2])


def test_hints_for_jobs_that_are_not_to_be_had_cost_no_process(service: Service, office: Office) -> None:
    jobs = list(not_to_be_had(service, office).values())
    url = redis_url(service.broker)
    assert url is not None
    with service.worker() as worker:
        ready = first_process(worker)

        def never_replaced() -> None:
            assert worker.child() == ready, "a hint cost a process"

        def dropped() -> bool:
            never_replaced()
            return waiting(service.broker) == 0

        for sent in range(250):
            send_hint(service.broker, jobs[sent % len(jobs)])
            if sent == 100:  # what looks at hints must be there again when the worker has connected again
                until(dropped, PATIENCE, lambda: "hints are not taken")
                redis_client.Redis.from_url(url).client_kill_filter(_type="normal")
        assert process_that_takes(service, service.submit(), never_replaced) == ready


@pytest.mark.verify  # it waits for three processes to come up
def test_a_hint_is_not_taken_before_a_process_stands_ready_for_it(service: Service, office: Office) -> None:
    with service.worker(fresh=True) as worker:
        first = first_process(worker)
        begun, behind = service.submit(steps=1), service.submit()
        assert process_that_takes(service, begun) == first
        second = first_process(worker, after=first)
        cancel(office, behind)  # the second process has seconds to go until it could take it
        assert process_that_takes(service, service.submit()) == second


def test_a_look_tells_which_jobs_are_to_be_had(service: Service, office: Office) -> None:
    queued, jobs = service.submit(hint=False), not_to_be_had(service, office)
    with office.engine.connect() as c:
        assert {kind: worth_claiming(c, id) for kind, id in jobs.items()} == dict.fromkeys(jobs, False)
        assert worth_claiming(c, queued)
    with service.api.begin() as c:
        policy.freeze(c, "budget_a", "a complaint")
    with office.engine.connect() as c:
        assert not worth_claiming(c, queued)


class Queue:
    """The queue as a worker's channel sees it, and what became of the hints."""

    def __init__(self, service: Service, settings: WorkerSettings) -> None:
        self.channel = make_app(settings).connection_for_read().default_channel
        self.channel.basic_qos(0, 1, False)
        self.handed_on: list[Any] = []
        self.put_off: list[tuple[Any, ...]] = []

    def take(self, engine: sa.Engine) -> None:
        """The next hint, with a look into this database."""
        message = self.channel.basic_get(QUEUE)
        take = only_worthwhile(self.hand_on, engine, None, (), lambda *again: self.put_off.append(again))
        take(message, None, message.ack_log_error, message.reject_log_error, ())

    def hand_on(self, message: Any, *_: Any) -> None:
        self.handed_on.append(message.payload[0])
        message.ack()

    def look_again(self) -> None:
        take, *arguments = self.put_off.pop()
        take(*arguments)


@pytest.fixture
def queue(service: Service, settings: WorkerSettings) -> Queue:
    return Queue(service, settings)


def test_without_a_database_a_hint_stays_in_hand_and_no_other_is_taken(
    service: Service, office: Office, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = service.submit()
    with monkeypatch.context() as patch:

        def away(*_: object) -> bool:
            raise sa.exc.OperationalError("SELECT", None, Exception("server closed the connection"))

        patch.setattr(module, "worth_claiming", away)
        queue.take(office.engine)
        queue.look_again()
        assert len(queue.put_off) == 1  # one at a time
        assert not queue.channel.qos.can_consume()
    queue.look_again()
    assert (queue.handed_on, queue.put_off) == ([[id]], [])


@pytest.mark.parametrize("argument", [5, "ftjob-\0", "ftjob-\ud800", None])
def test_what_is_no_hint_neither_ends_the_worker_nor_stays_in_its_hand(
    service: Service, office: Office, queue: Queue, argument: Any
) -> None:
    send_hint(service.broker, argument)
    queue.take(office.engine)
    assert queue.put_off == []
    assert queue.channel.qos.can_consume()  # it was acknowledged
