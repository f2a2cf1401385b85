"""Files: private datasets under a budget, public evaluation sets, results. Read within one tenant only."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from domain import blobs, budgets, scratch
from domain.blobs import Store
from domain.ids import new_id
from domain.planning import reference_job
from domain.refusals import Conflict, Invalid, NotFound
from domain.tables import file, job, job_file
from dpcore.spec.facts import ModelFacts

PRIVATE, PUBLIC, RESULT = "fine-tune", "evals", "fine-tune-results"
OPEN = ("validating_files", "queued", "running")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InlineBudget:
    """A budget that is opened with its first file."""

    epsilon: Decimal
    delta: Decimal | None
    unit: str
    name: str | None


@dataclass(frozen=True)
class Upload:
    """A file that was received and checked."""

    id: str
    tenant_id: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    declared_size: int
    labels: Sequence[str]
    max_length: int


def new_file_id() -> str:
    return new_id("file", "-")


def require_budget(connection: sa.Connection, tenant_id: str, budget_id: str, declared_size: int | None) -> None:
    """Whether a file of this size may be put under this budget. Raises NotFound or Invalid."""
    budget = budgets.require(connection, tenant_id, budget_id, "budget")
    if budget.unit != "record":
        raise Invalid(
            f"files under a budget of unit '{budget.unit}' are not supported yet",
            code="unsupported_unit",
            param="budget",
        )
    if declared_size is not None:
        require_small_delta(budget.delta, declared_size)


def require_small_delta(delta: Decimal, declared_size: int) -> None:
    """Delta is the chance of no protection at all: it must be below one in the file's declared size."""
    if delta * declared_size >= 1:
        raise Invalid(
            f"delta {float(delta):g} is not below 1 / declared_size = {1 / declared_size:.3g}; "
            "take a budget with a smaller delta",
            code="delta_too_large",
            param="delta",
        )


def register(
    connection: sa.Connection, upload: Upload, budget: str | InlineBudget | None, facts: ModelFacts
) -> sa.Row[Any]:
    """Insert a checked file, and its budget if it comes with one; the caller has stored its rows and commits.

    Raises NotFound or Invalid.
    """
    budget_id = None
    if isinstance(budget, str):
        require_budget(connection, upload.tenant_id, budget, upload.declared_size)
        budget_id = budget
    elif budget is not None:
        budget_id = _open_with(connection, upload, budget, facts)
    connection.execute(
        file.insert().values(
            id=upload.id,
            tenant_id=upload.tenant_id,
            purpose=upload.purpose,
            filename=upload.filename,
            bytes=upload.bytes,
            budget_id=budget_id,
            declared_size=upload.declared_size,
            labels=list(upload.labels),
            max_length=upload.max_length,
            blob=rows_key(upload.id),
        )
    )
    changed = sa.update(file).where(file.c.id == upload.id).values(sha256=upload.sha256, status="processed")
    return connection.execute(changed.returning(file)).one()


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
        reference=reference_job(upload.declared_size, float(budget.epsilon), facts),
    )
    return opened.id


def rows_key(file_id: str) -> str:
    """Where the checked rows of a file are kept."""
    return f"files/{file_id}/rows.parquet"


def of_tenant(tenant_id: str) -> sa.Select[Any]:
    """The files of a tenant that are not deleted."""
    return sa.select(file).where(file.c.tenant_id == tenant_id, file.c.deleted_at.is_(None))


def require(connection: sa.Connection, tenant_id: str, file_id: str, param: str | None = None) -> sa.Row[Any]:
    """The tenant's file. Raises NotFound."""
    row = connection.execute(of_tenant(tenant_id).where(file.c.id == file_id)).one_or_none()
    if row is None:
        raise NotFound("file", param)
    return row


def delete(connection: sa.Connection, store: Store, tenant_id: str, file_id: str) -> None:
    """Delete a file's content for good; its row and its budget's ledger stay. Raises NotFound or Conflict.

    The content goes before the caller commits: if the commit fails, asking again finishes the deletion.
    """
    # Submission takes a share lock on the row, so that no job can come in between.
    row = connection.execute(of_tenant(tenant_id).where(file.c.id == file_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound("file")
    uses = sa.select(job_file.c.job_id).where(job_file.c.file_id == file_id)
    waiting = sa.select(job.c.id).where(
        sa.or_(job.c.id.in_(uses), job.c.validation_file == file_id), job.c.status.in_(OPEN)
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


def forget_dead_uploads(engine: sa.Engine, store: Store) -> None:
    """At start: remove what uploads left that ended with their process."""
    for file_id in scratch.sweep(store):
        with engine.connect() as connection:
            known = connection.execute(sa.select(file.c.id).where(file.c.id == file_id)).first()
        if known is None:
            blobs.delete(store, rows_key(file_id))
        logger.warning("removed what was left of the upload of %s", file_id)
