"""The life of a job: where it may stand, every move from one status to another, and the hint that is out for it.

Nothing else writes the table `job`. A row only shows how far a job came: who works on it, what is paid and what ended
is the ledger's word, which the caller has in the same transaction before it comes here, and then commits. A move is one
UPDATE that finds only rows which it may come from, and then its event; from anywhere else it changes nothing and
answers False. Locks: the ledger's work, then the job, last the events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa

from domain.jobs.events import EventName, append_event
from domain.kit.statuses import ENDED, OPEN, Status
from domain.kit.tables import invitation, job, silo
from ledger.errors import AlreadySettled

Detail = Literal["waiting_for_approval", "waiting_for_silos", "paused", "pausing", "cancelling", "rejected", "expired"]
WAITING: Detail = "waiting_for_approval"
"""Queued; a steward must agree before any worker begins."""
INVITED: Detail = "waiting_for_silos"
"""Queued; it takes part in a federated job that has not been submitted yet."""
PAUSED: Detail = "paused"
"""Queued; nobody works on it until it is resumed."""
PAUSING: Detail = "pausing"
"""Its worker was asked to let go; queued, where that one was about to."""
CANCELLING: Detail = "cancelling"
"""Its worker was asked to stop and to settle; queued, where that one was about to let go."""
REJECTED: Detail = "rejected"
"""Cancelled, by a steward."""
EXPIRED: Detail = "expired"
"""Cancelled, by a time limit."""
HELD = (WAITING, INVITED, PAUSED)
"""Queued, but not in line."""
LIVE: tuple[Status, ...] = ("queued", "running")
"""Open and taken in: a worker works on it, or may."""

LONGEST_PAUSE = timedelta(days=7)
"""After which a paused job is cancelled: what it holds of a budget is nobody else's meanwhile."""

Limit = Literal["not_approved", "paused_too_long", "not_started", "not_finished"]
_LIMITS: Mapping[Limit, str] = {
    "not_approved": "no steward approved the job in time. Everything that it reserved went back.",
    "paused_too_long": f"the job was paused for {LONGEST_PAUSE.days} days. Authorised steps stay charged.",
    "not_started": "no worker began the job in time. Everything that it reserved went back.",
    "not_finished": "the job was not finished before its reservation ran out. Authorised steps stay charged.",
}


@dataclass(frozen=True)
class Move:
    """A step of a job's life: the event that tells of it, what the row must say, and what it says afterwards."""

    event: EventName
    statuses: tuple[Status, ...]
    details: tuple[Detail | None, ...] | None
    """None: whatever it says, for the ledger has decided."""
    to: Mapping[str, Status | Detail | None]
    """What it leaves out stays."""


Step = Literal[
    "waiting",
    "invited",
    "joined",
    "approved",
    "rejected",
    "started",
    "pausing",
    "paused",
    "resumed",
    "resumed in hand",
    "cancelling",
    "cancelled",
    "expired",
    "failed",
    "succeeded",
]
MOVES: Mapping[Step, Move] = {
    "waiting": Move("job.waiting", ("queued",), (None,), {"status_detail": WAITING}),
    "invited": Move("job.invited", ("queued",), (None,), {"status_detail": INVITED}),
    "joined": Move("job.joined", ("queued",), (None, INVITED, WAITING), {}),
    "approved": Move("job.approved", ("queued",), (WAITING,), {"status_detail": None}),
    "rejected": Move("job.rejected", ("queued",), (WAITING,), {"status": "cancelled", "status_detail": REJECTED}),
    # One that is being cancelled may be claimed once more, by a worker that looked before it was.
    "started": Move("job.started", LIVE, (None, CANCELLING), {"status": "running"}),
    "pausing": Move("job.pausing", LIVE, (None,), {"status_detail": PAUSING}),
    "paused": Move("job.paused", LIVE, (None, PAUSING), {"status": "queued", "status_detail": PAUSED}),
    "resumed": Move("job.resumed", LIVE, (PAUSED, PAUSING), {"status": "queued", "status_detail": None}),
    "resumed in hand": Move("job.resumed", LIVE, (PAUSED, PAUSING), {"status_detail": None}),
    "cancelling": Move("job.cancelling", LIVE, (None, PAUSED, PAUSING), {"status_detail": CANCELLING}),
    "cancelled": Move("job.cancelled", OPEN, None, {"status": "cancelled", "status_detail": None}),
    "expired": Move("job.expired", OPEN, None, {"status": "cancelled", "status_detail": EXPIRED}),
    "failed": Move("job.failed", OPEN, None, {"status": "failed", "status_detail": None}),
    "succeeded": Move("job.succeeded", OPEN, None, {"status": "succeeded", "status_detail": None}),
}


def queued(connection: sa.Connection, job_id: str, epsilon: float, **asked: Any) -> None:
    """A new job, before its reservation in the same transaction. asked: what it asks for, by column."""
    connection.execute(job.insert().values(id=job_id, **asked))
    message = f"Queued. {epsilon:g} of epsilon is reserved; what the job does not use goes back."
    append_event(connection, job_id, "job.queued", message, new=True)


def federated(connection: sa.Connection, job_id: str, silos: int, **asked: Any) -> None:
    """A new federated job, whose silos have reserved what it may cost. asked: as for `queued`."""
    connection.execute(job.insert().values(id=job_id, **asked))
    message = f"Queued. {silos} silos take part, each under a budget of its own; this job itself reserves nothing."
    append_event(connection, job_id, "job.queued", message, new=True)


def waiting(connection: sa.Connection, job_id: str) -> bool:
    """A job of this transaction, which the database made wait for a steward."""
    message = "Waiting: a job of this epsilon needs the approval of a steward."
    return _move(connection, job_id, "waiting", message, new=True)


def invited(connection: sa.Connection, job_id: str) -> bool:
    """A silo's job of this transaction, which waits until the federated job begins. One that waits for a steward too
    says that first."""
    message = "Waiting for the federated job to be submitted by the tenant that invited."
    return _move(connection, job_id, "invited", message, new=True)


def joined(connection: sa.Connection, job_id: str) -> bool:
    """The federated job that a silo's job was reserved for is there. Whether a steward is waited for stays."""
    detail = sa.case((job.c.status_detail == INVITED, None), else_=job.c.status_detail)
    return _move(
        connection, job_id, "joined", "The federated job is submitted: its rounds begin.", status_detail=detail
    )


def approved(connection: sa.Connection, job_id: str, by: Mapping[str, str], reason: str | None = None) -> bool:
    """A steward agreed: it is in line, or waits for its federated job. by: id and name of the key."""
    mine = invitation.c.job_id == job.c.id
    early = sa.exists().where(mine, ~sa.exists().where(silo.c.job_id == invitation.c.job_id)).correlate(job)
    detail = sa.case((early, INVITED), else_=None)
    message = f"Approved by {by['name']}" + (f": {reason}" if reason else ".")
    data = {"by": dict(by), "reason": reason}
    return _move(connection, job_id, "approved", message, data, status_detail=detail)


def rejected(connection: sa.Connection, job_id: str, by: Mapping[str, str], reason: str) -> bool:
    """A steward refused, for a reason that its owner may read. by: id and name of the key."""
    data = {"by": dict(by), "reason": reason}
    return _move(connection, job_id, "rejected", f"Rejected by {by['name']}: {reason}", data)


def started(connection: sa.Connection, job_id: str) -> None:
    """A worker holds the lease. Raises AlreadySettled where the row forbids it; the lease must then be rolled back."""
    first = job.c.started_at.is_(None)
    if _move(connection, job_id, "started", "Started: a worker has the job.", only=first, started_at=_minute()):
        return
    # That it is not the first attempt is nobody's business but the operator's.
    if not _move(connection, job_id, "started", None):
        raise AlreadySettled(f"job {job_id} is held or has ended")


def pausing(connection: sa.Connection, job_id: str) -> bool:
    """Its worker was asked to let go."""
    message = "Pausing: the worker keeps a checkpoint and lets go. Nothing is settled."
    return _move(connection, job_id, "pausing", message)


def paused(connection: sa.Connection, job_id: str) -> bool:
    """Nobody works on it any more, and nobody may until it is resumed."""
    message = (
        "Paused. Authorised steps stay charged and the rest stays reserved; "
        f"without a resume the job is cancelled after {LONGEST_PAUSE.days} days."
    )
    return _move(connection, job_id, "paused", message)


def resumed(connection: sa.Connection, job_id: str, *, in_hand: bool) -> bool:
    """in_hand: a worker still holds the lease."""
    message = "Resumed: it goes on from its checkpoint, with fresh draws."
    step: Step = "resumed in hand" if in_hand else "resumed"
    # Without a time of its last hint the reconciler sends one, should the caller's be lost.
    return _move(connection, job_id, step, message, hinted_at=None)


def cancelling(connection: sa.Connection, job_id: str) -> bool:
    """Its worker was asked to stop and to settle."""
    return _move(connection, job_id, "cancelling", "Cancelling: the worker stops before its next step.")


def cancelled(connection: sa.Connection, job_id: str) -> bool:
    """Settled, because somebody asked for it."""
    message = "Cancelled. Steps that were authorised stay charged; the rest went back to the budget."
    return _move(connection, job_id, "cancelled", message)


def expired(connection: sa.Connection, job_id: str, limit: Limit) -> bool:
    """Settled, because one of its time limits is over."""
    return _move(connection, job_id, "expired", f"Expired: {_LIMITS[limit]}", {"code": limit})


def failed(connection: sa.Connection, job_id: str, code: str, message: str) -> bool:
    """Settled. code, message: as its owner may know them."""
    error = {"code": code, "message": message, "param": None}
    return _move(connection, job_id, "failed", message, {"code": code}, error=error)


def succeeded(connection: sa.Connection, job_id: str, quality: Mapping[str, Any] | None = None) -> None:
    """Settled, its results released. quality: of them, where a public file measured it. Raises AlreadySettled where the
    row says that it has ended; the releases must then be rolled back."""
    data = None if quality is None else {"quality": dict(quality)}
    if not _move(connection, job_id, "succeeded", "The job has been completed: the adapter is released.", data):
        raise AlreadySettled(f"job {job_id} has ended")


def took_part(connection: sa.Connection, job_id: str) -> bool:
    """A silo's job, settled: the federated job needs nothing more of it."""
    message = "The silo has taken part to the end. Steps that were authorised stay charged; the rest went back."
    return _move(connection, job_id, "succeeded", message)


def hinted(connection: sa.Connection, job_ids: Sequence[str]) -> None:
    """A hint for each of these is out, or about to be."""
    connection.execute(sa.update(job).where(job.c.id.in_(job_ids)).values(hinted_at=sa.func.clock_timestamp()))


def forget_hints(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Whatever hint is out for such open jobs is worth nothing: the reconciler sends another one."""
    out = sa.update(job).where(job.c.status.in_(LIVE), job.c.hinted_at.is_not(None), which)
    connection.execute(out.values(hinted_at=None))


def _move(
    connection: sa.Connection,
    job_id: str,
    step: Step,
    message: str | None,
    data: Mapping[str, Any] | None = None,
    *,
    new: bool = False,
    only: sa.ColumnElement[bool] | None = None,
    **more: object,
) -> bool:
    """Whether the job moved; without a message no event tells of it. more: further columns."""
    move = MOVES[step]
    values: dict[str, object] = {**move.to, **more}
    if values.get("status") in ENDED:
        values["finished_at"] = _minute()
    found = sa.update(job).where(job.c.id == job_id, job.c.status.in_(move.statuses))
    if move.details is not None:
        found = found.where(sa.func.coalesce(job.c.status_detail, "").in_([detail or "" for detail in move.details]))
    if only is not None:
        found = found.where(only)
    if connection.execute(found.values(values)).rowcount == 0:
        return False
    if message is not None:
        append_event(connection, job_id, move.event, message, data, new=new)
    return True


def _minute() -> sa.ColumnElement[object]:
    """The minute, but never before the job was made: exact times would tell how long the work on private rows took."""
    return sa.func.greatest(job.c.created_at, sa.func.date_trunc("minute", sa.func.now()))
