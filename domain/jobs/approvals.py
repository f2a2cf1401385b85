"""Jobs that wait for a steward: approved or rejected. That nobody works on them before is the database's doing."""

import sqlalchemy as sa

from domain.jobs import life
from domain.jobs.life import WAITING
from domain.kit.refusals import Conflict, Forbidden
from ledger import grants, reserve
from ledger.errors import AlreadySettled, GrantEnded, NotWaiting, ReservationExpired

_ENDED = Conflict(
    "the grant that the job is charged to has ended: reject the job, or let it be submitted again under a new grant",
    code="grant_ended",
)
_NOT_WAITING = Conflict("the job does not wait for approval", code="not_waiting")


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
    except GrantEnded as error:
        raise _ENDED from error
    life.approved(connection, row.id)


def reject(connection: sa.Connection, row: sa.Row[tuple[object, ...]], by: str, reason: str) -> None:
    """Cancel a waiting job; all of its reservation goes back, the caller commits. Raises Conflict."""
    if row.status != "queued" or row.status_detail != WAITING:
        raise _NOT_WAITING
    try:
        with connection.begin_nested():
            reserve.settle(connection, row.id, "cancelled", detail={"by": by, "reason": reason})
    except AlreadySettled as error:
        raise _NOT_WAITING from error
    life.rejected(connection, row.id, reason)
