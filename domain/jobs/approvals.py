"""Jobs that wait for a steward: shown as such, approved, rejected. That nobody works on them before is the database's
doing."""

import sqlalchemy as sa

from domain.jobs.events import append_event
from domain.jobs.releases import rounded_now
from domain.kit.refusals import Conflict, Forbidden
from domain.kit.statuses import REJECTED, WAITING
from domain.kit.tables import job
from ledger import grants, reserve
from ledger.errors import AlreadySettled, NotWaiting, ReservationExpired

_NOT_WAITING = Conflict("the job does not wait for approval", code="not_waiting")


def show_waiting(connection: sa.Connection, job_id: str) -> None:
    """Say so of a new job that the database made wait."""
    connection.execute(sa.update(job).where(job.c.id == job_id).values(status_detail=WAITING))
    message = "Waiting: a job of this epsilon needs the approval of a steward."
    append_event(connection, job_id, "job.waiting", message, new=True)


def approve(connection: sa.Connection, row: sa.Row[tuple[object, ...]], by: str, reason: str | None) -> None:
    """Release a waiting job; the caller, a steward's key, has found the job, commits, then sends a hint.

    Raises Forbidden for the key that submitted it, Conflict when it does not wait (any more).
    """
    if row.created_by == by:
        raise Forbidden("nobody approves a job of their own; ask another steward", code="own_job")
    try:
        with connection.begin_nested():
            grants.approve(connection, row.id, by, reason)
    except (NotWaiting, AlreadySettled, ReservationExpired) as error:
        raise _NOT_WAITING from error
    connection.execute(sa.update(job).where(job.c.id == row.id).values(status_detail=None))
    append_event(connection, row.id, "job.approved", "Approved by a steward.")


def reject(connection: sa.Connection, row: sa.Row[tuple[object, ...]], by: str, reason: str) -> None:
    """Cancel a waiting job; all of its reservation goes back, the caller commits. Raises Conflict."""
    if row.status != "queued" or row.status_detail != WAITING:
        raise _NOT_WAITING
    try:
        with connection.begin_nested():
            reserve.settle(connection, row.id, "cancelled", detail={"by": by, "reason": reason})
    except AlreadySettled as error:
        raise _NOT_WAITING from error
    ended = {"status": "cancelled", "status_detail": REJECTED, "finished_at": rounded_now()}
    connection.execute(sa.update(job).where(job.c.id == row.id).values(**ended))
    append_event(connection, row.id, "job.rejected", f"Rejected by a steward: {reason}")
