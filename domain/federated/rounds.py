"""The rounds of a federated job as the database has them: opened and closed by its worker, begun and answered by those
of its silos, each under its own fence. Only the database's clock counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa

from domain.kit.statuses import ENDED
from domain.kit.tables import federated_round, invitation, job, silo, silo_round
from ledger.errors import translated
from ledger.tables import reservation, work
from ledger.work import Lease

Role = Literal["federated", "silo"]


@dataclass(frozen=True)
class NewestRound:
    """The newest round of a federated job, as of now. seconds: since it was opened; overdue: it has waited long enough,
    for messages or for the opening of masks; came: the silos whose messages count, once it is closed.

    Behind masks, silos: whose masks are on its messages; agreed: whose messages are in the sum, with their digests,
    once no more may come.
    """

    number: int
    blob: str
    sha256: str
    seconds: float
    overdue: bool
    closed: bool
    came: tuple[str, ...] = ()
    silos: tuple[str, ...] | None = None
    agreed: Mapping[str, str] | None = None


def role_of(connection: sa.Connection, job_id: str) -> Role | None:
    """What a job is in a federated one; None for any other job. A silo's job whose federated job is not there yet is a
    silo's."""
    row = connection.execute(
        sa.select(
            sa.exists().where(silo.c.parent_id == job_id),
            sa.or_(sa.exists().where(silo.c.job_id == job_id), sa.exists().where(invitation.c.job_id == job_id)),
        )
    ).one()
    return "federated" if row[0] else "silo" if row[1] else None


def newest(connection: sa.Connection, parent_id: str) -> NewestRound | None:
    """The round that was opened last, if any."""
    now, table = sa.func.clock_timestamp(), federated_round.c
    row = connection.execute(
        sa.select(
            table.number,
            table.blob,
            table.sha256,
            sa.extract("epoch", now - table.opened_at).label("seconds"),
            (_due_at(federated_round) <= now).label("overdue"),
            table.came,
            table.silos,
            table.agreed,
        )
        .where(table.job_id == parent_id)
        .order_by(table.number.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    came, silos = tuple(row.came or ()), None if row.silos is None else tuple(row.silos)
    closed = row.came is not None
    return NewestRound(
        row.number, row.blob, row.sha256, float(row.seconds), row.overdue, closed, came, silos, row.agreed
    )


def _due_at(table: sa.FromClause) -> sa.ColumnElement[Any]:
    """When a round waits no longer: for messages, and then as long again for masks to be opened."""
    again = table.c.closed_at + (table.c.closes_at - table.c.opened_at)
    return sa.case((table.c.closed_at.is_(None), table.c.closes_at), else_=again)


def open_round(
    connection: sa.Connection,
    lease: Lease,
    number: int,
    blob: str,
    sha256: str,
    patience: float,
    silos: Sequence[str] | None = None,
) -> None:
    """Open a round at the factors in a blob; the caller commits. silos: whose masks will be on its messages, where
    there are masks. Raises StaleFence."""
    with translated():
        connection.execute(
            federated_round.insert().values(
                job_id=lease.job_id,
                number=number,
                fence=lease.fence,
                blob=blob,
                sha256=sha256,
                closes_at=sa.func.now() + sa.literal(timedelta(seconds=patience), sa.Interval),
                silos=None if silos is None else list(silos),
            )
        )


def close_round(connection: sa.Connection, lease: Lease, number: int, came: Sequence[str]) -> None:
    """Close a round: whatever has not come counts for nothing. came: the silos, by name, whose messages count. The
    caller commits. Raises StaleFence."""
    closed = sa.update(federated_round).where(
        federated_round.c.job_id == lease.job_id, federated_round.c.number == number
    )
    with translated():
        connection.execute(closed.values(fence=lease.fence, came=list(came)))


@dataclass(frozen=True)
class Sent:
    """A silo's message of a round."""

    silo: str
    blob: str
    sha256: str


def messages(connection: sa.Connection, parent_id: str, number: int) -> list[Sent]:
    """What has come of a round, in the order of the silos' names."""
    rows = connection.execute(
        sa.select(silo.c.name, silo_round.c.blob, silo_round.c.sha256)
        .join(silo, silo.c.job_id == silo_round.c.job_id)
        .where(silo.c.parent_id == parent_id, silo_round.c.number == number, silo_round.c.blob.is_not(None))
        .order_by(silo.c.name)
    )
    return [Sent(*row) for row in rows]


@dataclass(frozen=True)
class Working:
    """A silo that has not left. place: whose worker has its job, as in `ledger.work.silo`."""

    name: str
    job_id: str
    place: str | None


def taking_part(connection: sa.Connection, parent_id: str) -> list[Working]:
    """The silos that have not left, in the order of their names."""
    rows = connection.execute(
        sa.select(silo.c.name, silo.c.job_id, work.c.silo)
        .join(job, job.c.id == silo.c.job_id)
        .join(work, work.c.job_id == silo.c.job_id)
        .where(silo.c.parent_id == parent_id, job.c.status.not_in(ENDED))
        .order_by(silo.c.name)
    )
    return [Working(*row) for row in rows]


@dataclass(frozen=True)
class Promised:
    """A silo of a federated job, whether it has left or not: public values. plan: of its own job."""

    name: str
    tenant_id: str
    declared_size: int
    plan: Mapping[str, Any]
    privacy: Mapping[str, Any]


def members(connection: sa.Connection, parent_id: str) -> list[Promised]:
    """All silos of a federated job, in the order of their names."""
    rows = connection.execute(
        sa.select(silo.c.name, job.c.tenant_id, silo.c.declared_size, job.c.plan, job.c.privacy)
        .join(job, job.c.id == silo.c.job_id)
        .where(silo.c.parent_id == parent_id)
        .order_by(silo.c.name)
    )
    return [Promised(*row) for row in rows]


def waited(connection: sa.Connection, parent_id: str) -> float:
    """Seconds since a federated job was begun, about: its row's times are whole minutes."""
    since = sa.select(sa.extract("epoch", sa.func.clock_timestamp() - job.c.started_at)).where(job.c.id == parent_id)
    return float(connection.execute(since).scalar_one() or 0.0)


def times_counted(connection: sa.Connection, parent_id: str) -> dict[str, int]:
    """In how many rounds the message of each silo counted."""
    closed = sa.select(federated_round.c.came).where(
        federated_round.c.job_id == parent_id, federated_round.c.came.is_not(None)
    )
    return Counter(name for came in connection.execute(closed).scalars() for name in came)


def any_counted(connection: sa.Connection, parent_id: str, least: int) -> bool:
    """Whether in some round at least so many silos' messages counted."""
    enough = sa.func.jsonb_array_length(federated_round.c.came) >= least
    found = sa.select(sa.exists().where(federated_round.c.job_id == parent_id, enough))
    return bool(connection.execute(found).scalar_one())


@dataclass(frozen=True)
class Membership:
    """A silo's place in its federated job. status: of the federated job."""

    parent_id: str
    name: str
    status: str
    declared_size: int


def membership(connection: sa.Connection, job_id: str) -> Membership | None:
    """Of a silo's job; None before the federated job is there."""
    row = connection.execute(
        sa.select(silo.c.parent_id, silo.c.name, job.c.status, silo.c.declared_size)
        .join(job, job.c.id == silo.c.parent_id)
        .where(silo.c.job_id == job_id)
    ).one_or_none()
    return None if row is None else Membership(*row)


@dataclass(frozen=True)
class Begun:
    """A silo's own rounds so far. steps: of all that it ever began. unsent: fences of attempts at the newest round that
    began it; sent: whether its message is there."""

    steps: int
    sent_rounds: int
    unsent: tuple[int, ...]
    sent: bool


def begun(connection: sa.Connection, job_id: str, number: int) -> Begun:
    """What a silo has begun and sent, of all rounds and of this one."""
    rows = connection.execute(
        sa.select(silo_round.c.number, silo_round.c.fence, silo_round.c.steps, silo_round.c.blob).where(
            silo_round.c.job_id == job_id
        )
    ).all()
    return Begun(
        steps=sum(row.steps for row in rows),
        sent_rounds=sum(row.blob is not None for row in rows),
        unsent=tuple(sorted(row.fence for row in rows if row.number == number and row.blob is None)),
        sent=any(row.number == number and row.blob is not None for row in rows),
    )


def begin(connection: sa.Connection, lease: Lease, number: int, steps: int) -> None:
    """A silo begins a round, whose steps are authorised; the caller commits before they run. Raises StaleFence."""
    with translated():
        connection.execute(
            silo_round.insert().values(job_id=lease.job_id, number=number, fence=lease.fence, steps=steps)
        )


def send(connection: sa.Connection, lease: Lease, number: int, fence: int, blob: str, sha256: str) -> None:
    """A silo's message is there. fence: under which the round was begun. The caller commits. Raises StaleFence, and
    RoundClosed when it comes too late."""
    table = silo_round.c
    sent = sa.update(silo_round).where(table.job_id == lease.job_id, table.number == number, table.fence == fence)
    with translated():
        connection.execute(sent.values(sent_fence=lease.fence, blob=blob, sha256=sha256))


_round, _parent, _child, _other = federated_round.alias(), silo.alias(), silo.alias(), silo.alias()


def due() -> sa.ColumnElement[bool]:
    """Of a row of `job`: whether there is something to do for a worker now. Of a silo: keys of masks that it has not
    said, a round without its message, or masks to open; of a federated job: no round is open and no steward waited for,
    or one is complete or overdue. Any other job: yes."""
    mine = silo_round.c.job_id == _child.c.job_id, silo_round.c.number == _round.c.number
    answered = sa.exists().where(*mine, silo_round.c.blob.is_not(None))
    masked = job.c.plan.contains({"options": {"masked": True}})
    takes_part = sa.or_(_round.c.silos.is_(None), _round.c.silos.contains(sa.func.jsonb_build_array(_child.c.name)))
    to_send = sa.and_(_round.c.closed_at.is_(None), takes_part, ~answered)
    agreed = sa.and_(_round.c.agreed.has_key(_child.c.name), _round.c.came.is_(None))
    to_sign = sa.exists().where(*mine, silo_round.c.blob.is_not(None), silo_round.c.signature.is_(None))
    to_open = sa.exists().where(*mine, silo_round.c.signature.is_not(None), silo_round.c.opening.is_(None))
    to_unmask = sa.and_(agreed, sa.or_(to_sign, sa.and_(to_open, ~_unsigned())))
    asked = (
        sa.select(_round.c.number)
        .join(_child, _child.c.parent_id == _round.c.job_id)
        .where(_child.c.job_id == job.c.id, sa.or_(to_send, to_unmask))
        .correlate(job)
        .exists()
    )
    keyless = sa.exists().where(_child.c.job_id == job.c.id, _child.c.mask_keys.is_(None)).correlate(job)
    is_silo = sa.or_(
        sa.exists().where(_child.c.job_id == job.c.id).correlate(job),
        sa.exists().where(invitation.c.job_id == job.c.id).correlate(job),
    )
    siblings = sa.select(_parent.c.job_id).where(_parent.c.parent_id == job.c.id).correlate(job)
    is_federated = siblings.exists()
    held_up = sa.exists().where(reservation.c.job_id == _parent.c.job_id, reservation.c.waits)
    unended = sa.select(_round.c.number).where(_round.c.job_id == job.c.id, _round.c.came.is_(None)).correlate(job)
    overdue = unended.where(_due_at(_round) <= sa.func.clock_timestamp())
    return sa.case(
        (is_silo, sa.or_(asked, sa.and_(masked, keyless))),
        (
            is_federated,
            sa.or_(
                sa.and_(~unended.exists(), ~siblings.where(held_up).exists()),
                overdue.exists(),
                sa.and_(unended.exists(), ~_unanswered(job.c.id)),
            ),
        ),
        else_=sa.true(),
    )


def _unsigned() -> sa.ColumnElement[bool]:
    """Of `_round`: whether somebody whose message is in the sum has not signed the list of those that are."""
    signed = sa.exists().where(
        silo_round.c.job_id == _other.c.job_id,
        silo_round.c.number == _round.c.number,
        silo_round.c.signature.is_not(None),
    )
    waited_for = sa.select(_other.c.job_id).where(
        _other.c.parent_id == _round.c.job_id, _round.c.agreed.has_key(_other.c.name), ~signed
    )
    return waited_for.correlate_except(_other, silo_round).exists()


def left_behind() -> sa.ColumnElement[bool]:
    """Of a row of `job`: whether it is a silo's, whose federated job has ended."""
    over = job.alias()
    of = sa.select(over.c.id).join(_child, _child.c.parent_id == over.c.id).where(over.c.status.in_(ENDED))
    return of.where(_child.c.job_id == job.c.id).correlate(job).exists()


def complete(connection: sa.Connection, parent_id: str) -> bool:
    """Whether what the newest round waits for is there: the message of every silo that takes part in it and has not
    left; or, once it is agreed whose messages are in, their opened masks, or that somebody left who will open none."""
    return bool(connection.execute(sa.select(~_unanswered(sa.literal(parent_id)))).scalar_one())


def _unanswered(parent_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether the round that has not ended waits for somebody who has not left."""
    of, member, owner = federated_round.alias(), silo.alias(), job.alias()
    mine = silo_round.c.job_id == member.c.job_id, silo_round.c.number == of.c.number
    message = sa.exists().where(*mine, silo_round.c.blob.is_not(None))
    opened = sa.exists().where(*mine, silo_round.c.opening.is_not(None))
    takes_part = sa.or_(of.c.silos.is_(None), of.c.silos.contains(sa.func.jsonb_build_array(member.c.name)))
    waiting = sa.case(
        (of.c.agreed.is_(None), sa.and_(takes_part, ~message)),
        else_=sa.and_(of.c.agreed.has_key(member.c.name), ~opened),
    )
    here = owner.c.status.not_in(ENDED)
    waited_for = (
        sa.select(member.c.job_id)
        .join(of, of.c.job_id == member.c.parent_id)
        .join(owner, owner.c.id == member.c.job_id)
        .where(member.c.parent_id == parent_id, of.c.came.is_(None), here, waiting)
        .correlate_except(of, member, owner, silo_round)
    )
    gone = (
        sa.select(member.c.job_id)
        .join(of, of.c.job_id == member.c.parent_id)
        .join(owner, owner.c.id == member.c.job_id)
        .where(member.c.parent_id == parent_id, of.c.came.is_(None), ~here, of.c.agreed.has_key(member.c.name), ~opened)
        .correlate_except(of, member, owner, silo_round)
    )
    return sa.and_(waited_for.exists(), ~gone.exists())
