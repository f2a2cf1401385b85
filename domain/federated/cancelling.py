"""Ending a federated job, or a silo's part in it. Budgets before work before the job's row: silos first, by budget."""

import sqlalchemy as sa

from domain.access.grants import Viewer
from domain.jobs import acting, life
from domain.jobs.reading import require
from domain.kit.refusals import Conflict
from domain.kit.statuses import ENDED
from domain.kit.tables import job, silo
from ledger import work
from ledger.tables import reservation


def cancel(connection: sa.Connection, viewer: Viewer, job_id: str) -> None:
    """Stop a job, a federated one with all its silos; the caller commits. Raises NotFound, or Conflict for a job that
    ended otherwise."""
    row = require(connection, viewer, job_id)
    if row.silo_job is None:
        acting.cancel(connection, viewer, job_id)
        return
    if row.status == "cancelled":
        return
    if row.status in ENDED:
        raise Conflict(f"the job has {row.status}; there is nothing to cancel", code="job_has_ended")
    for child in _open_silos(connection, job_id):
        acting.stop(connection, child)
    if work.leased(connection, job_id):
        work.request_stop(connection, job_id)
        life.cancelling(connection, job_id)
    else:
        life.cancelled(connection, job_id)


def _open_silos(connection: sa.Connection, parent_id: str) -> list[str]:
    found = (
        sa.select(silo.c.job_id)
        .join(job, job.c.id == silo.c.job_id)
        .join(reservation, reservation.c.job_id == job.c.id)
        .where(silo.c.parent_id == parent_id, job.c.status.not_in(ENDED))
        .order_by(reservation.c.budget_id, job.c.id)
    )
    return list(connection.execute(found).scalars())
