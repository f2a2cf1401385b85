"""The fence of a job's work: who may go on, and how many steps are paid for. Only the database's clock counts."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from ledger.errors import StaleFence, translated
from ledger.tables import authorisation, phase, reservation, work

LONGEST_LEASE = timedelta(minutes=10)
"""The database refuses a longer one."""


@dataclass(frozen=True)
class Lease:
    """The right to work on a job until `claim`, `renew` or time says otherwise."""

    job_id: str
    fence: int


def claim(connection: sa.Connection, job_id: str, owner: str, seconds: float, *, paid: bool = True) -> Lease | None:
    """Take the lease if nobody holds it, the job is neither settled nor paused and no steward is waited for: the fence
    grows by one. None otherwise. paid: whether the job has reserved what it may cost; one that is a federated job has
    not, and the database asks its silos and its row instead: raises AlreadySettled when it has ended."""
    of_job = sa.exists().where(reservation.c.job_id == work.c.job_id)
    free = (
        work.c.job_id == job_id,
        sa.or_(work.c.lease_until.is_(None), work.c.lease_until < sa.func.clock_timestamp()),
        work.c.paused_at.is_(None),
        of_job.where(reservation.c.state == "reserved") if paid else sa.true(),
        ~of_job.where(reservation.c.waits),
    )
    # Locked by a statement of its own: the next one sees what a settlement did that had the lock until now.
    if connection.execute(sa.select(work.c.job_id).where(*free).with_for_update()).first() is None:
        return None
    with translated():
        fence = connection.execute(
            sa.update(work)
            .where(*free)
            .values(fence=work.c.fence + 1, owner=owner, lease_until=_after(seconds))
            .returning(work.c.fence)
        ).scalar_one_or_none()
    return None if fence is None else Lease(job_id, fence)


def renew(connection: sa.Connection, lease: Lease, seconds: float) -> bool:
    """Extend the lease; answers whether the job was asked to stop or pause. Raises StaleFence when it is lost."""
    asked: bool | None = connection.execute(
        sa.update(work)
        .where(*_held(lease), work.c.lease_until > sa.func.clock_timestamp())
        .values(lease_until=_after(seconds))
        .returning(sa.or_(work.c.stop_requested, work.c.paused_at.is_not(None)))
    ).scalar_one_or_none()
    if asked is None:
        raise StaleFence(f"the lease on {lease.job_id} under fence {lease.fence} is lost")
    return asked


def count(connection: sa.Connection, lease: Lease, seconds: float) -> float:
    """Add to the seconds that the job has been in hand; answers their sum over all attempts. Raises StaleFence."""
    total: float | None = connection.execute(
        sa.update(work).where(*_held(lease)).values(seconds=work.c.seconds + seconds).returning(work.c.seconds)
    ).scalar_one_or_none()
    if total is None:
        raise StaleFence(f"the lease on {lease.job_id} under fence {lease.fence} is lost")
    return total


def drop(connection: sa.Connection, lease: Lease) -> None:
    """Give the lease back so that another worker need not wait for it to run out; harmless when it is lost."""
    connection.execute(sa.update(work).where(*_held(lease)).values(lease_until=sa.func.clock_timestamp()))


def request_stop(connection: sa.Connection, job_id: str) -> None:
    """Ask whoever works on the job to stop; from here on nothing more is authorised."""
    connection.execute(sa.update(work).where(work.c.job_id == job_id).values(stop_requested=True))


def stop_requested(connection: sa.Connection, job_id: str) -> bool:
    """Whether the job was asked to stop; that is never taken back."""
    return bool(connection.execute(sa.select(work.c.stop_requested).where(work.c.job_id == job_id)).scalar_one())


def pause(connection: sa.Connection, job_id: str) -> bool:
    """Hold a job with its reservation: from here on nobody claims it and nothing more is authorised. Answers whether a
    worker holds the lease, who is to let go. A pause that lasts already stays as it is."""
    return _pause(connection, job_id, sa.func.clock_timestamp())


def resume(connection: sa.Connection, job_id: str) -> bool:
    """End a pause; harmless without one. Answers whether a worker still holds the lease."""
    return _pause(connection, job_id, sa.null())


def paused(connection: sa.Connection, job_id: str) -> bool:
    """Whether a job is paused; it stays so until the caller's transaction ends."""
    since = sa.select(work.c.paused_at).where(work.c.job_id == job_id).with_for_update()
    return connection.execute(since).scalar_one() is not None


def _pause(connection: sa.Connection, job_id: str, since: sa.ColumnElement[Any]) -> bool:
    leased = sa.func.coalesce(work.c.lease_until > sa.func.clock_timestamp(), sa.false())
    changed = sa.update(work).where(work.c.job_id == job_id).values(paused_at=since).returning(leased)
    return bool(connection.execute(changed).scalar_one())


def excuse(connection: sa.Connection, lease: Lease) -> bool:
    """When a worker lets go: whether that is because of a pause. The attempt then does not count as one that failed,
    and until the caller commits nobody resumes the job."""
    return _excuse(connection, lease, work.c.paused_at.is_not(None))


def excuse_waiting(connection: sa.Connection, lease: Lease) -> None:
    """When a worker lets go because it waits for others: the attempt does not count as one that failed."""
    _excuse(connection, lease, sa.true())


def _excuse(connection: sa.Connection, lease: Lease, where: sa.ColumnElement[bool]) -> bool:
    excused = sa.update(work).where(*_held(lease), where).values(excused_fence=work.c.fence)
    return connection.execute(excused).rowcount == 1


def leased(connection: sa.Connection, job_id: str) -> bool:
    """Whether a worker holds the job; it stays so until the caller's transaction ends."""
    until = sa.select(work.c.lease_until > sa.func.clock_timestamp()).where(work.c.job_id == job_id).with_for_update()
    return bool(connection.execute(until).scalar_one())


def authorise(connection: sa.Connection, lease: Lease, ordinal: int, steps: int) -> int:
    """Authorise up to `steps` more steps of a phase in every budget of the job; the caller commits before they run.

    Returns how many were authorised: fewer when the reservation runs out, 0 when it is used up.
    Raises StaleFence, StopRequested, PauseRequested, BudgetFrozen, ReservationExpired or AlreadySettled.
    """
    with translated():
        phases = connection.execute(
            sa.select(
                phase.c.reservation_id,
                phase.c.indivisible,
                (phase.c.steps_max - phase.c.steps_authorised).label("left"),
            )
            .join(reservation, reservation.c.id == phase.c.reservation_id)
            .where(reservation.c.job_id == lease.job_id, phase.c.ordinal == ordinal)
            .order_by(reservation.c.budget_id)
        ).all()
        # What cannot be cut is asked for whole, whatever the chunk.
        granted = min((p.left if p.indivisible else min(steps, p.left) for p in phases), default=0)
        for p in phases if granted > 0 else ():
            connection.execute(
                authorisation.insert().values(
                    reservation_id=p.reservation_id, ordinal=ordinal, fence=lease.fence, steps=granted
                )
            )
    return granted


def _held(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    return work.c.job_id == lease.job_id, work.c.fence == lease.fence


def _after(seconds: float) -> sa.ColumnElement[object]:
    return sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, 0, 0, float(seconds))
