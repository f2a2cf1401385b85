"""Reading: what a federated job shows of its silos and rounds, and a silo's job of its own. Of another tenant's silo:
its name, its declared size, and which of its messages came; nothing of its job's status or price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from domain.access.grants import Viewer
from domain.federated.invitations import METHOD
from domain.kit.tables import federated_round, file, invitation, job, job_file, silo, silo_round
from domain.models.allow_list import BaseModelFacts
from dpcore.terms.facts import ModelFacts
from dpcore.terms.federated import payload
from dpcore.terms.methods.federated_lora import Options
from dpcore.terms.tasks import TaskKind

SiloState = Literal["waiting", "working", "sent", "left"]
"""waiting: no round is open; working: its message of the open round is awaited; sent: that is there, or the silo took
part to the end; left: it ended before that, for whatever reason."""


@dataclass(frozen=True)
class MessageSize:
    """The longest message of a round, by arithmetic on shapes. ratio: how many times that the whole model is."""

    bytes: int
    ratio: float


@dataclass(frozen=True)
class Member:
    """A silo as everybody in its federated job may know it. job: None for another tenant's; guest: as it was invited,
    None for that of the job's own training file."""

    name: str
    own: bool
    guest: str | None
    job: str | None
    state: SiloState
    declared_size: int
    sent: int
    missed: int


@dataclass(frozen=True)
class FederatedPart:
    """Of a federated job: its silos. Of a silo's job: silos is None, and parent its federated job where that is of the
    viewer's tenant. done, open: rounds of the federated job that are closed, and the number of the open one; sent and
    missed are the silo's own, None of a federated job. message: None for a model that is not there now."""

    silos: tuple[Member, ...] | None
    parent: str | None
    total: int
    done: int
    open: int | None
    sent: int | None
    missed: int | None
    message: MessageSize | None


def longest_message(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> MessageSize:
    """Of all rounds, for a model of these facts."""
    numbers = max(payload.numbers(options, facts, labels=labels, task=task, round=round) for round in options.kinds)
    size = payload.message_bytes(numbers, options.masked)
    return MessageSize(size, payload.ratio(facts.parameters, numbers, options.masked))


def parts(
    connection: sa.Connection, viewer: Viewer, models: Mapping[str, BaseModelFacts], rows: Sequence[sa.Row[Any]]
) -> dict[str, FederatedPart]:
    """By job, for those rows of `domain.jobs.reading` that are federated or silos: one statement, and none where there
    are none. A row that cannot be read has no part."""
    theirs = [row for row in rows if isinstance(row.method, dict) and row.method.get("type") == METHOD]
    if not theirs:
        return {}
    found = connection.execute(_members(theirs)).all()
    made = {}
    for row in theirs:
        members = [m for m in found if (m.parent_id if row.silo_job else m.job_id) == row.id]
        try:
            made[row.id] = _part(viewer, models, row, members)
        except (TypeError, ValueError, LookupError, AttributeError):
            continue  # the database was changed: the job is shown as damaged
    return made


def _members(rows: Sequence[sa.Row[Any]]) -> sa.Select[Any]:
    """The silos of these jobs, and those that are silos themselves, also before there is a federated job."""
    parents = [row.id for row in rows if row.silo_job]
    children = sa.func.unnest(sa.cast([row.id for row in rows if not row.silo_job], sa.ARRAY(sa.Text)))
    wanted = sa.select(silo.c.job_id).where(silo.c.parent_id.in_(parents)).union_all(sa.select(children))
    parent, closed, opened = job.alias(), federated_round.alias(), federated_round.alias()
    over = sa.and_(closed.c.job_id == silo.c.parent_id, closed.c.came.is_not(None))
    message = sa.and_(silo_round.c.job_id == silo.c.job_id, silo_round.c.blob.is_not(None))
    open_number = (
        sa.select(sa.func.max(opened.c.number))
        .where(opened.c.job_id == silo.c.parent_id, opened.c.came.is_(None))
        .correlate(silo)  # by hand: in `answered` it lies two levels deep
        .scalar_subquery()
    )
    labels = (
        sa.select(sa.func.max(sa.func.cardinality(file.c.labels)))
        .join(job_file, job_file.c.file_id == file.c.id)
        .where(job_file.c.job_id == job.c.id)
    )
    return (
        sa.select(
            job.c.id.label("job_id"),
            job.c.tenant_id,
            job.c.status,
            silo.c.parent_id,
            parent.c.tenant_id.label("host"),
            silo.c.name,
            silo.c.declared_size,
            invitation.c.guest,
            sa.func.coalesce(labels.scalar_subquery(), 0).label("labels"),
            _count(closed, over).label("done"),
            _count(closed, over, ~closed.c.came.contains(sa.func.jsonb_build_array(silo.c.name))).label("missed"),
            _count(silo_round, message).label("sent"),
            open_number.label("open"),
            sa.exists().where(message, silo_round.c.number == open_number).correlate(silo).label("answered"),
        )
        .join(silo, silo.c.job_id == job.c.id, isouter=True)
        .join(parent, parent.c.id == silo.c.parent_id, isouter=True)
        .join(invitation, invitation.c.id == silo.c.invitation_id, isouter=True)
        .where(job.c.id.in_(wanted))
        .order_by(sa.func.length(silo.c.name), silo.c.name)
    )


def _count(table: sa.FromClause, *which: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(*which).correlate(silo).scalar_subquery()


def _part(
    viewer: Viewer, models: Mapping[str, BaseModelFacts], row: sa.Row[Any], members: Sequence[sa.Row[Any]]
) -> FederatedPart:
    options = Options.model_validate(row.plan["options"])
    own = next(m for m in members if m.job_id == (row.silo_job or row.id))
    known = models.get(row.model)
    federated = row.silo_job is not None
    return FederatedPart(
        silos=tuple(_member(viewer, m) for m in members) if federated else None,
        parent=own.parent_id if not federated and own.host == viewer.tenant_id else None,
        total=options.rounds,
        done=own.done,
        open=own.open,
        sent=None if federated else own.sent,
        missed=None if federated else own.missed,
        message=None if known is None else longest_message(options, known.facts, labels=own.labels, task=row.task),
    )


def _member(viewer: Viewer, row: sa.Row[Any]) -> Member:
    own = row.tenant_id == viewer.tenant_id
    return Member(
        name=row.name,
        own=own,
        guest=row.guest,
        job=row.job_id if own else None,
        state=_state(row),
        declared_size=row.declared_size,
        sent=row.sent,
        missed=row.missed,
    )


def _state(row: sa.Row[Any]) -> SiloState:
    if row.status in ("failed", "cancelled"):
        return "left"
    if row.status == "succeeded" or row.answered:
        return "sent"
    return "waiting" if row.open is None else "working"
