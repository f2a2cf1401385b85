"""Who works on a job: claiming it, and holding on to it while the main thread is busy."""

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import sqlalchemy as sa

from domain.federated.rounds import due
from domain.jobs import life
from domain.kit.tables import job
from ledger import work
from ledger.errors import StaleFence
from ledger.tables import budget, reservation
from ledger.tables import work as work_table
from ledger.work import Lease
from worker.log import log

MOST_SECONDS_BETWEEN_BEATS = 5.0  # so that a request to stop is soon heard, however long the lease

FROZEN = sa.exists().where(
    reservation.c.job_id == job.c.id, budget.c.id == reservation.c.budget_id, budget.c.frozen_reason.is_not(None)
)
"""Of a job: no step of it may be authorised until the operator says so."""


def of_silo(silo: str | None) -> sa.ColumnElement[bool]:
    """Of a job's work: that it is for the workers of this silo, or for those of none. The database refuses the rest."""
    return work_table.c.silo.is_not_distinct_from(silo)


def worth_claiming(connection: sa.Connection, job_id: str, silo: str | None = None) -> bool:
    """A look without a lock, for the many hints that come too late; `claim` decides. silo: the worker's own."""
    return (
        connection.execute(
            sa.select(job.c.id)
            .join(work_table, work_table.c.job_id == job.c.id)
            .where(
                job.c.id == job_id,
                of_silo(silo),
                job.c.status.in_(life.LIVE),
                work_table.c.paused_at.is_(None),
                ~work_table.c.stop_requested,  # the reconciler ends it
                ~sa.exists().where(reservation.c.job_id == job.c.id, reservation.c.waits),
                ~FROZEN,
                due(),
                sa.or_(work_table.c.lease_until.is_(None), work_table.c.lease_until < sa.func.clock_timestamp()),
            )
        ).first()
        is not None
    )


def claim(connection: sa.Connection, job_id: str, seconds: float, *, paid: bool = True) -> Lease | None:
    """Take the lease and show the job as running; None when somebody else has it or there is nothing left to do.
    paid: as in `ledger.work.claim`.

    Raises AlreadySettled when the job's row forbids what the ledger allows; the lease must then be rolled back."""
    # Of a job that reserved nothing the row alone says that it has ended.
    if not paid and not connection.scalar(sa.select(job.c.status.in_(life.LIVE)).where(job.c.id == job_id)):
        return None
    lease = work.claim(connection, job_id, f"{socket.gethostname()}:{os.getpid()}", seconds, paid=paid)
    if lease is None:
        return None
    life.started(connection, job_id)
    return lease


class Heartbeat:
    """Renews a lease from a thread and a connection of its own until the block ends.

    A lease that could not be renewed in time counts as lost by this machine's clock, whatever hangs: the clock starts
    before each renewal is sent, so it runs out here before it does in the database.
    """

    def __init__(
        self,
        engine: sa.Engine,
        lease: Lease,
        seconds: float,
        claimed_at: float,
        *,
        worked: float = 0.0,
        limit: float | None = None,
    ) -> None:
        """claimed_at: time.monotonic() from before the claim was sent. worked: seconds that earlier attempts had the
        job in hand. limit: the most that all of them may have it; None: no limit."""
        self._engine, self._lease, self._seconds, self._limit = engine, lease, seconds, limit
        self._good_until = claimed_at + seconds
        self._counted = worked, claimed_at
        self._waited = 0.0, math.inf  # seconds so far, and since when it waits now: one object for two threads
        self._lost, self._stop, self._end = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def held(self) -> bool:
        """Whether the lease is still ours."""
        return not self._lost.is_set() and time.monotonic() < self._good_until

    @property
    def stop_requested(self) -> bool:
        """Whether the job was asked to stop or pause, as of the last beat."""
        return self._stop.is_set()

    @property
    def overtime(self) -> float:
        """Seconds that the job has been in hand beyond its limit; negative while there are some left."""
        if self._limit is None:
            return -math.inf
        worked, until = self._counted
        return worked + self._in_hand(time.monotonic()) - until - self._limit

    def _in_hand(self, now: float) -> float:
        """A moment of time.monotonic() on a clock that stands still while the job waits for others."""
        waited, since = self._waited
        return min(now, since) - waited

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The job waits for others in here, which is none of its own time."""
        waited, since = self._waited[0], time.monotonic()
        self._waited = waited, since
        try:
            yield
        finally:
            self._waited = waited + time.monotonic() - since, math.inf

    def lift_limit(self) -> None:
        """What is trained is published, however long that takes."""
        self._limit = None

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=self._seconds)

    def _beat(self) -> None:
        while not self._end.wait(min(self._seconds / 4, MOST_SECONDS_BETWEEN_BEATS)):
            sent = time.monotonic()
            try:
                with self._engine.begin() as connection:
                    stop = work.renew(connection, self._lease, self._seconds)
                    moment = self._in_hand(sent)
                    worked = work.count(connection, self._lease, moment - self._counted[1])
            except StaleFence:
                self._lost.set()
                return
            except sa.exc.SQLAlchemyError:
                continue  # away for now: the next beat tries again, and time runs out by itself
            self._good_until, self._counted = sent + self._seconds, (worked, moment)
            if stop:
                self._stop.set()
            if self.overtime > self._seconds:
                _end_hanging_process(self._lease.job_id)


def _end_hanging_process(job_id: str) -> None:
    """A step that never ends hears no request: the process is ended, and the next attempt ends the job."""
    log.error("job %s: past its time limit and not stopping; this process is killed", job_id)
    os.kill(os.getpid(), signal.SIGKILL)
