"""Jobs that wait for a steward: approved or rejected. That nobody works on them before is the database's doing."""

import sqlalchemy as sa

from domain.jobs import life
from domain.jobs.life import WAITING
from domain.kit.refusals import Conflict, Forbidden
from domain.kit.tables import api_key, job
from ledger import grants, reserve
from ledger.errors import AlreadySettled, GrantEnded, NotWaiting, ReservationExpired, StaleFence
from ledger.tables import entry, reservation

_ENDED = Conflict(
    "the grant that the job is charged to has ended: reject the job, or let it be submitted again under a new grant",
    code="grant_ended",
)


def approve(connection: sa.Connection, row: sa.Row[tuple[object, ...]], by: str, reason: str | None) -> None:
    """Release a waiting job; the caller, a steward's key, has found the job, commits, then sends a hint.

    Raises Forbidden for the key that submitted it, Conflict when it does not wait (any more), saying who decided.
    """
    if row.created_by == by:
        raise Forbidden("nobody approves a job of their own; ask another steward", code="own_job")
    try:
        with connection.begin_nested():
            grants.approve(connection, row.id, by, reason)
    except (NotWaiting, AlreadySettled, ReservationExpired) as error:
        raise _not_waiting(connection, row.id) from error
    except GrantEnded as error:
        raise _ENDED from error
    life.approved(connection, row.id, _named(connection, by), reason)


def reject(connection: sa.Connection, row: sa.Row[tuple[object, ...]], by: str, reason: str) -> None:
    """Cancel a waiting job; all of its reservation goes back, the caller commits. Raises Conflict, as `approve`."""
    if row.status != "queued" or row.status_detail != WAITING:
        raise _not_waiting(connection, row.id)
    try:
        with connection.begin_nested():
            reserve.settle(connection, row.id, "cancelled", detail={"by": by, "reason": reason})
            # Approved by somebody else since it was read: a settlement alone would end that one.
            if not life.rejected(connection, row.id, _named(connection, by), reason):
                raise NotWaiting(f"job {row.id} does not wait for approval")
    except (AlreadySettled, NotWaiting, StaleFence) as error:
        raise _not_waiting(connection, row.id) from error


def _named(connection: sa.Connection, key_id: str) -> dict[str, str]:
    """A key as the events of a job name it."""
    name = connection.execute(sa.select(api_key.c.name).where(api_key.c.id == key_id)).scalar_one()
    return {"id": key_id, "name": name}


def _not_waiting(connection: sa.Connection, job_id: str) -> Conflict:
    """Says who decided already, or where the job stands."""
    by = entry.c.detail["by"].astext
    said = connection.execute(
        sa.select(entry.c.kind, by.label("id"), api_key.c.name)
        .join(reservation, reservation.c.id == entry.c.reservation_id)
        .join(job, job.c.id == reservation.c.job_id)
        .join(api_key, sa.and_(api_key.c.id == by, api_key.c.tenant_id == job.c.tenant_id))
        .where(job.c.id == job_id, entry.c.kind.in_(("approve", "settle")))
        .order_by(entry.c.seq)
        .limit(1)
    ).one_or_none()
    if said is not None:
        decision = "approved" if said.kind == "approve" else "rejected"
        return Conflict(
            f"the job does not wait for approval: {said.name} has {decision} it",
            code="not_waiting",
            decision=decision,
            decided_by={"id": said.id, "name": said.name},
        )
    status = connection.execute(sa.select(job.c.status).where(job.c.id == job_id)).scalar_one()
    return Conflict(f"the job does not wait for approval: it is {status}", code="not_waiting")
