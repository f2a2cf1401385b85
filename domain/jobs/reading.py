"""Reading: the jobs of one tenant that a viewer may see, with what the ledger and the releases say about each."""

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from domain.access.grants import Viewer, sees_job
from domain.files import files
from domain.jobs.life import HELD, WAITING
from domain.kit.purposes import RESULT
from domain.kit.refusals import Conflict, NotFound
from domain.kit.tables import api_key, file, job, job_event, job_file, release
from ledger.tables import entry, phase, reservation

_ahead, _source, _key = job.alias(), file.alias(), api_key.alias()
_STATEMENTS = 128
"""Viewers whose statement is kept: it takes longer to put together than to run, and some 40 KiB."""


@lru_cache(_STATEMENTS)
def of_tenant(viewer: Viewer) -> sa.Select[Any]:
    """The jobs of a tenant that the viewer may see, with what the ledger and the releases say about each.

    For single jobs: a place in the queue is counted job by job. A page of them: `page_of_tenant`.
    """
    first = sa.tuple_(_ahead.c.created_at, _ahead.c.id) <= sa.tuple_(job.c.created_at, job.c.id)
    place = sa.select(sa.func.count()).where(*_waits(viewer), first).correlate(job).scalar_subquery()
    return _seen_by(viewer).add_columns(sa.case((_in_line(job), place)).label("queue_position"))


@lru_cache(_STATEMENTS)
def page_of_tenant(viewer: Viewer) -> sa.Select[Any]:
    """The same for many jobs: the queue is numbered once, not once for each of them."""
    number = sa.func.row_number().over(order_by=(_ahead.c.created_at, _ahead.c.id)).label("place")
    line = sa.select(_ahead.c.id, number).where(*_waits(viewer)).cte("line").prefix_with("MATERIALIZED")
    # No join: on young statistics it would be done for all jobs before the page is cut.
    place = sa.select(line.c.place).where(line.c.id == job.c.id).scalar_subquery()
    return _seen_by(viewer).add_columns(place.label("queue_position"))


def waiting_of_tenant(viewer: Viewer) -> sa.Select[Any]:
    """Of those, the jobs that a steward must agree to before any worker begins."""
    return page_of_tenant(viewer).where(*_for_steward(viewer))


def count_waiting(viewer: Viewer) -> sa.ScalarSelect[int]:
    """How many these are."""
    return sa.select(sa.func.count()).where(*_for_steward(viewer)).scalar_subquery()


def _for_steward(viewer: Viewer) -> tuple[sa.ColumnElement[bool], ...]:
    queued = sa.literal("queued", literal_execute=True)  # in the text of the statement, where an index can be seen
    return job.c.tenant_id == viewer.tenant_id, job.c.status == queued, job.c.status_detail == WAITING


def _seen_by(viewer: Viewer) -> sa.Select[Any]:
    # Correlated by hand: this one lies two levels deep, where SQLAlchemy would read the whole job table instead.
    # A federated job has no reservation and no file: it shows those of its own tenant's silo.
    accounted = sa.func.coalesce(job.c.silo_job, job.c.id)
    own = sa.select(sa.func.min(reservation.c.id)).where(reservation.c.job_id == accounted).correlate(job)
    first = own.scalar_subquery()
    steps = sa.select(sa.func.array_agg(aggregate_order_by(phase.c.steps_authorised, phase.c.ordinal))).where(
        phase.c.reservation_id == first
    )
    charge = sa.select(
        sa.func.json_build_object(
            "budget", entry.c.budget_id, "seq", entry.c.seq, "hash", sa.func.encode(entry.c.hash, "hex")
        )
    ).where(entry.c.reservation_id == first, entry.c.kind == "reserve")
    training = sa.select(sa.func.min(job_file.c.file_id)).where(job_file.c.job_id == accounted)
    task = (
        sa.select(sa.func.min(_source.c.task))
        .join(job_file, job_file.c.file_id == _source.c.id)
        .where(job_file.c.job_id == accounted)
    )
    results = (
        sa.select(sa.func.array_agg(aggregate_order_by(release.c.file_id, release.c.kind)))  # the adapter first
        .join(file, file.c.id == release.c.file_id)
        .where(release.c.job_id == job.c.id, file.c.deleted_at.is_(None))
    )
    # What a public file said of the result stands in the event of its release.
    measured = sa.select(sa.func.min(sa.cast(job_event.c.data["quality"], sa.Text))).where(
        job_event.c.job_id == job.c.id, job_event.c.name == "job.succeeded"
    )
    # Who decided on a job that waited. A key of another tenant is nobody's name here.
    by = entry.c.detail["by"].astext
    known = sa.and_(_key.c.id == by, _key.c.tenant_id == job.c.tenant_id)
    name = sa.select(_key.c.name).where(known).correlate(entry, job).scalar_subquery()
    rejected = sa.and_(entry.c.kind == "settle", by.is_not(None))
    decided = sa.select(
        sa.func.json_build_object(
            *("id", by, "name", sa.func.coalesce(name, "")),
            *("decision", sa.case((entry.c.kind == "approve", "approved"), else_="rejected")),
            *("reason", entry.c.detail["reason"].astext),
            *("at", sa.cast(sa.extract("epoch", sa.func.date_trunc("minute", entry.c.at)), sa.BigInteger)),
        )
    ).where(entry.c.reservation_id == first, sa.or_(entry.c.kind == "approve", rejected))
    decision = decided.order_by(entry.c.seq).limit(1)  # a settlement that names somebody too ends no list
    submitter = sa.select(_key.c.name).where(_key.c.id == job.c.created_by)
    return sa.select(
        job,
        sa.cast(measured.scalar_subquery(), JSONB).label("quality"),
        training.scalar_subquery().label("training_file"),
        task.scalar_subquery().label("task"),
        steps.scalar_subquery().label("steps_by_phase"),
        charge.scalar_subquery().label("receipt"),
        results.scalar_subquery().label("result_files"),
        submitter.scalar_subquery().label("submitter"),
        decision.scalar_subquery().label("decision"),
    ).where(job.c.tenant_id == viewer.tenant_id, sees_job(viewer, job.c.id))


def _waits(viewer: Viewer) -> tuple[sa.ColumnElement[bool], ...]:
    """What holds of the jobs in the viewer's line, as `_ahead`."""
    return _ahead.c.tenant_id == viewer.tenant_id, sees_job(viewer, _ahead.c.id), _in_line(_ahead)


def _in_line(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether a job waits for a worker and for nobody else."""
    queued = sa.literal("queued", literal_execute=True)  # in the text of the statement, where an index can be seen
    return sa.and_(table.c.status == queued, sa.func.coalesce(table.c.status_detail, "").not_in(HELD))


def require(connection: sa.Connection, viewer: Viewer, job_id: str) -> sa.Row[Any]:
    """The job, if the viewer may see it. Raises NotFound."""
    row = connection.execute(of_tenant(viewer).where(job.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound("fine-tuning job")
    return row


def adapter(connection: sa.Connection, viewer: Viewer, job_id: str, *, keep: bool = False) -> sa.Row[Any]:
    """The file that holds a job's adapter. keep: it cannot be deleted until the caller's transaction ends. Raises
    NotFound, or Conflict while there is none."""
    row = require(connection, viewer, job_id)
    found = (
        files.of_tenant(viewer)
        .join(release, release.c.file_id == file.c.id)
        .where(release.c.job_id == job_id, release.c.kind == "adapter", file.c.purpose == RESULT)
    )
    released = connection.execute(found.with_for_update(read=True, of=file) if keep else found).one_or_none()
    if released is None:
        raise Conflict(f"there is no adapter: the job has status {row.status}", code="no_adapter")
    return released
