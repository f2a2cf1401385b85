"""Ends of a job other than success, settled and shown in one transaction; and letting go of one that has not ended."""

import sqlalchemy as sa

from domain.jobs import life
from domain.jobs.pauses import show_paused
from ledger import work
from ledger.errors import PauseRequested, StopRequested
from ledger.reserve import settle
from ledger.tables import phase, reservation
from ledger.work import Lease
from worker.errors import OutOfTime, Refused

TRAINING_FAILED = Refused(
    "training_failed", "Training failed. Its cause may depend on private data and is not shown; the job is charged."
)


def cancel(connection: sa.Connection, job_id: str, fence: int | None) -> None:
    """Settle what was authorised, give the rest back. Without a fence: only while nobody holds the lease."""
    settle(connection, job_id, "cancelled", fence=fence)
    life.cancelled(connection, job_id)


def expire(connection: sa.Connection, job_id: str, fence: int) -> None:
    """Settle as cancelled, because the reservation is past its age."""
    settle(connection, job_id, "cancelled", fence=fence)
    life.expired(connection, job_id, "not_finished")


def let_go(engine: sa.Engine, lease: Lease) -> bool:
    """Leave a job to the next attempt; show it as paused or end it as cancelled where that was asked for. True when the
    job has ended."""
    with engine.begin() as connection:
        stop = work.stop_requested(connection, lease.job_id)
        if stop:
            cancel(connection, lease.job_id, lease.fence)
        elif work.excuse(connection, lease):
            show_paused(connection, lease.job_id)
    return stop


def fail(connection: sa.Connection, job_id: str, fence: int | None, reason: Refused) -> None:
    """Settle as failed: free before the first authorised step; after it everything reserved is spent and the reason
    is not shown, whatever it was, except for a time limit."""
    may_be_said = isinstance(reason, OutOfTime) or not steps_authorised(connection, job_id)
    shown = reason if may_be_said else TRAINING_FAILED
    settle(connection, job_id, "failed", fence=fence)
    life.failed(connection, job_id, shown.code, shown.message)


def fail_privately(engine: sa.Engine, lease: Lease) -> bool:
    """A failure that the private rows may have caused tells something about them even before the first step: it costs
    what the same failure would cost later, so one step is authorised first. False when nothing may be authorised any
    more: then nothing of the failure is shown either."""
    try:
        with engine.begin() as connection:
            if not steps_authorised(connection, lease.job_id):
                work.authorise(connection, lease, 0, 1)
    except (StopRequested, PauseRequested):
        return False
    # A transaction of its own: settling locks the budget more strongly than authorising does.
    with engine.begin() as connection:
        fail(connection, lease.job_id, lease.fence, TRAINING_FAILED)
    return True


def steps_authorised(connection: sa.Connection, job_id: str) -> int:
    """Steps of the job's phases that were authorised so far, in the budget that has fewest."""
    totals = (
        sa.select(sa.func.sum(phase.c.steps_authorised).label("steps"))
        .join(reservation, reservation.c.id == phase.c.reservation_id)
        .where(reservation.c.job_id == job_id)
        .group_by(reservation.c.id)
        .subquery()
    )
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.min(totals.c.steps), 0))).scalar_one())
