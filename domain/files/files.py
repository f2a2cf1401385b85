"""Files: private datasets under a budget, public evaluation sets, results. Read within one tenant only."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from domain.access import budgets
from domain.access.grants import Viewer, sees_file
from domain.access.reference import reference_job
from domain.files import binding, fingerprints, resemblance, scratch, whereabouts
from domain.files.resemblance import Resemblance
from domain.files.whereabouts import Ask, Decision, Destination
from domain.ingest.marks import Marks
from domain.kit.ids import new_id
from domain.kit.refusals import Conflict, Invalid, NotFound
from domain.kit.statuses import OPEN
from domain.kit.tables import checkpoint, data_key, file, identity, job, job_file, question, release
from domain.storage import blobs
from domain.storage.blobs import Store
from domain.storage.homes import home_of
from domain.storage.sealing import Seal
from dpcore.terms.facts import ModelFacts
from dpcore.terms.measuring import trained_on
from dpcore.terms.tasks import TaskKind
from ledger.policy import record_overlap

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InlineBudget:
    """A budget that is opened with its first file."""

    epsilon: Decimal
    delta: Decimal | None
    unit: str
    max_records_per_user: int | None
    name: str | None
    held_out: Decimal = Decimal(0)


@dataclass(frozen=True)
class Upload:
    """A file that was received, and checked for the unit of the budget that it is meant for."""

    id: str
    tenant_id: str
    purpose: str
    task: TaskKind
    filename: str
    bytes: int
    sha256: str
    declared_size: int
    labels: Sequence[str] | None
    max_length: int
    """Tokens of a record; of pictures their resolution."""


def new_file_id() -> str:
    return new_id("file", "-")


def require_budget(connection: sa.Connection, tenant_id: str, budget_id: str, declared_size: int | None) -> sa.Row[Any]:
    """The budget, if a file of this size may be put under it. Raises NotFound or Invalid."""
    budget = budgets.require_own(connection, tenant_id, budget_id, "budget")
    if declared_size is not None:
        require_small_delta(budget.delta, declared_size)
    return budget


def require_small_delta(delta: Decimal, declared_size: int) -> None:
    """Delta is the chance of no protection at all: it must be below one in the file's declared size."""
    if delta * declared_size >= 1:
        raise Invalid(
            f"delta {float(delta):g} is not below 1 / declared_size = {1 / declared_size:.3g}; "
            "take a budget with a smaller delta",
            code="delta_too_large",
            param="delta",
        )


@dataclass(frozen=True)
class Registered:
    """A file that is in the database now."""

    row: sa.Row[Any]
    inherited: bool
    """Whether it went to the budget that holds some of its records or users, or such as they, in place of a new one."""
    public: dict[str, int]
    """Public files that have some of a private one's texts, or such as they, and how many."""


def register(
    connection: sa.Connection,
    upload: Upload,
    rows: Seal,
    budget: str | InlineBudget | None,
    facts: ModelFacts,
    marks: Marks,
    near: Resemblance,
    decision: Decision | None,
    key_mark: bytes,
) -> Registered | Ask:
    """Insert a checked file, tied to `rows`, and its budget if it comes with one; the caller has stored its rows under
    that seal, and commits. Where only the steward can say whose its records are, nothing is done, and that is asked.

    Records and users stay with the budget that they came to first, under whatever name, label, format or cut they come
    again. A decision that they are of different people becomes an entry of every budget concerned; that private texts
    may be in a public file, one on its question. Raises NotFound, Invalid or Conflict.
    """
    fingerprints.lock(connection, upload.tenant_id)
    resemblance.look(connection, upload.tenant_id, marks.sketches, near)
    budget_id, inherited, public = None, False, Counter[str]()
    if budget is None:
        if decision is None and not whereabouts.was_released(connection, upload.tenant_id, upload.sha256):
            ask = whereabouts.private_texts(connection, upload.tenant_id, marks, near)
            if ask.budgets:
                return ask
    else:
        named = budget if isinstance(budget, str) else None
        if named is not None:
            require_budget(connection, upload.tenant_id, named, upload.declared_size)
        where = whereabouts.place(connection, upload.tenant_id, named, marks, near, decision)
        if isinstance(where, Ask):
            return where
        inherited = where.inherited
        if where.budget_id is None and isinstance(budget, InlineBudget):
            budget_id = _open_with(connection, upload, budget, facts)
        else:
            budget_id = _inherited(connection, upload, budget, where)
        if where.decided and decision is not None and decision.reason is not None:
            _decide(connection, upload.id, budget_id, where.decided, decision.reason)
        fingerprints.bind(connection, upload.tenant_id, budget_id, marks)
        public = fingerprints.published(connection, upload.tenant_id, marks)
        public |= Counter(near.public)
    values: dict[str, Any] = {
        "id": upload.id,
        "tenant_id": upload.tenant_id,
        "purpose": upload.purpose,
        "task": upload.task,
        "filename": upload.filename,
        "bytes": upload.bytes,
        "sha256": upload.sha256,
        "status": "processed",
        "budget_id": budget_id,
        "declared_size": upload.declared_size,
        "labels": None if upload.labels is None else list(upload.labels),
        "max_length": upload.max_length,
        "blob": rows.name,
    }
    adding = file.insert().values(**values, binding=binding.bind(connection, rows, values))
    row = connection.execute(adding.returning(file)).one()
    if budget_id is None:
        fingerprints.publish(connection, upload.tenant_id, upload.id, marks)
    resemblance.keep(connection, upload.tenant_id, upload.id, budget_id, marks.sketches)
    connection.execute(identity.insert().values(file_id=upload.id, key_mark=key_mark, made="upload"))
    return Registered(row, inherited, dict(public))


def _inherited(connection: sa.Connection, upload: Upload, asked: str | InlineBudget, where: Destination) -> str:
    """The budget that a file goes to, if its unit is the one that the file was checked for."""
    assert where.budget_id is not None
    held = require_budget(connection, upload.tenant_id, where.budget_id, upload.declared_size)
    if isinstance(asked, str):
        meant = require_budget(connection, upload.tenant_id, asked, None)
        unit, most = meant.unit, meant.max_records_per_user
    else:
        unit, most = asked.unit, asked.max_records_per_user
    if (held.unit, held.max_records_per_user) != (unit, most):
        bound = "" if held.max_records_per_user is None else f" with max_records_per_user {held.max_records_per_user}"
        raise Invalid(
            f"some of these records or users are in {held.id} already, whose unit is '{held.unit}'{bound}: a budget "
            "keeps its unit; send budget with that id",
            code="unit_mismatch",
            param="privacy_budget.unit",
            budgets=[held.id],
        )
    budget_id: str = held.id
    return budget_id


def _decide(connection: sa.Connection, file_id: str, budget_id: str, others: Sequence[str], reason: str) -> None:
    concerned = sorted([budget_id, *others])  # ledger locks are taken in the order of ids
    for one in concerned:
        for other in others if one == budget_id else [budget_id]:
            record_overlap(connection, one, file_id, other, reason)


def _open_with(connection: sa.Connection, upload: Upload, budget: InlineBudget, facts: ModelFacts) -> str:
    delta = budgets.default_delta(upload.declared_size) if budget.delta is None else budget.delta
    require_small_delta(delta, upload.declared_size)
    opened = budgets.open_new(
        connection,
        upload.tenant_id,
        name=budget.name or f"for {upload.id}",
        epsilon=budget.epsilon,
        delta=delta,
        unit=budget.unit,
        max_records_per_user=budget.max_records_per_user,
        held_out=budget.held_out,
        reference=reference_job(
            trained_on(upload.declared_size, float(budget.held_out)),
            float(budget.epsilon),
            facts,
            upload.task,
            len(upload.labels or ()),
        ),
    )
    return opened.id


def folder_key(home: str, file_id: str) -> str:
    """What the names of a new file's blobs begin with. home: homes.home_for."""
    return f"{home}files/{file_id}/"


def rows_key(home: str, file_id: str) -> str:
    """Where the checked rows of a new file are kept."""
    return f"{folder_key(home, file_id)}rows.parquet"


def of_tenant(viewer: Viewer, *, deleted: bool = False) -> sa.Select[Any]:
    """The files of a tenant that the viewer may see; those that are deleted only where they are asked for."""
    found = sa.select(file).where(file.c.tenant_id == viewer.tenant_id, sees_file(viewer))
    return found if deleted else found.where(file.c.deleted_at.is_(None))


def require(connection: sa.Connection, viewer: Viewer, file_id: str, param: str | None = None) -> sa.Row[Any]:
    """The file, if the viewer may see it. Raises NotFound."""
    row = connection.execute(of_tenant(viewer).where(file.c.id == file_id)).one_or_none()
    if row is None:
        raise NotFound("file", param)
    return row


def delete(connection: sa.Connection, store: Store, viewer: Viewer, file_id: str) -> None:
    """Delete a file's content for good; its row and its budget's ledger stay. Raises NotFound, or Conflict while a job
    that has not ended reads it or learns from it: for a steward, who sees every job of the tenant.

    The content goes before the caller commits: if the commit fails, asking again finishes the deletion.
    """
    # Submission takes a share lock on the row, so that no job can come in between.
    row = connection.execute(of_tenant(viewer).where(file.c.id == file_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound("file")
    uses = sa.select(job_file.c.job_id).where(job_file.c.file_id == file_id)
    made_by = sa.select(release.c.job_id).where(release.c.file_id == file_id, release.c.kind == "adapter")
    waiting = sa.select(job.c.id).where(
        sa.or_(job.c.id.in_(uses), job.c.validation_file == file_id, job.c.teacher_job.in_(made_by)),
        job.c.status.in_(OPEN),
    )
    open_jobs = connection.execute(waiting.order_by(job.c.created_at)).scalars().all()
    if open_jobs:
        raise Conflict(
            f"{len(open_jobs)} jobs that have not ended use this file; cancel them first",
            code="file_in_use",
            jobs=list(open_jobs),
        )
    connection.execute(sa.update(file).where(file.c.id == file_id).values(deleted_at=sa.func.now()))
    if row.blob is not None:
        blobs.delete(store, row.blob)


def encrypt_old(engine: sa.Engine, store: Store) -> int:
    """Encrypt what an earlier version stored as it was in the store's own place; answers how many blobs. Needs the
    worker's login."""
    stored = sa.union(
        sa.select(file.c.blob).where(file.c.blob.is_not(None), file.c.deleted_at.is_(None)),
        sa.select(checkpoint.c.blob),
    ).subquery()
    without_key = sa.select(stored.c.blob).where(stored.c.blob.not_in(sa.select(data_key.c.blob)))
    with engine.connect() as connection:
        names = connection.execute(without_key).scalars().all()
    return sum(blobs.encrypt_plain(store, name) for name in names if home_of(name) == store.home)


def forget_dead_uploads(engine: sa.Engine, store: Store) -> None:
    """At start: remove what uploads left that ended with their process."""
    for place in store.places:
        for file_id in scratch.sweep(place):
            with engine.connect() as connection:
                waits = sa.select(question.c.file_id).where(question.c.file_id == file_id, question.c.answer.is_(None))
                known = connection.execute(sa.union(sa.select(file.c.id).where(file.c.id == file_id), waits)).first()
            if known is None:
                for each in store.places:  # in an object store's service all uploads pass through one folder
                    blobs.delete(store, rows_key(each.home, file_id))
            logger.warning("removed what was left of the upload of %s", file_id)
