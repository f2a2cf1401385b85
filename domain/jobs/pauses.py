"""Jobs that are held and taken up again. That nobody works on a paused job is the database's doing.

A pause settles nothing: authorised steps stay charged and the reservation stays held, for a week at most.
"""

import sqlalchemy as sa

from domain.jobs import life
from domain.jobs.life import CANCELLING, PAUSED, PAUSING, WAITING
from domain.kit.refusals import Conflict
from domain.kit.statuses import ENDED
from domain.kit.tables import job
from ledger import work


def pause(connection: sa.Connection, job_id: str) -> None:
    """Hold a job that the caller has found: at once if nobody works on it, otherwise by asking its worker.

    Pausing twice changes nothing. Raises Conflict for a job that ended, ends or waits for a steward; the transaction
    must then be rolled back.
    """
    leased = work.pause(connection, job_id)
    if _require_open(connection, job_id, "pause") == WAITING:
        raise Conflict(
            "the job waits for a steward's approval, so that nobody works on it anyway", code="waiting_for_approval"
        )
    if leased:
        life.pausing(connection, job_id)
    else:
        show_paused(connection, job_id)


def show_paused(connection: sa.Connection, job_id: str) -> None:
    """Say that nobody works on a paused job any more, unless it was resumed meanwhile or is being cancelled."""
    if work.paused(connection, job_id):
        life.paused(connection, job_id)


def resume(connection: sa.Connection, job_id: str) -> bool:
    """Let a paused job that the caller has found go on from its checkpoint; answers whether a hint is due.

    Resuming what is not paused changes nothing. Raises Conflict for a job that ended or ends.
    """
    leased = work.resume(connection, job_id)
    if _require_open(connection, job_id, "resume") not in (PAUSED, PAUSING):
        return False
    return life.resumed(connection, job_id, in_hand=leased)


def _require_open(connection: sa.Connection, job_id: str, what: str) -> str | None:
    """The job's detail. Its work is locked: whoever ends the job has done so, or waits for us."""
    row = connection.execute(sa.select(job.c.status, job.c.status_detail).where(job.c.id == job_id)).one()
    if row.status in ENDED:
        raise Conflict(f"the job has {_PERFECT[row.status]}; there is nothing to {what}", code="job_has_ended")
    if row.status_detail == CANCELLING:
        raise Conflict(f"the job is being cancelled; there is nothing to {what}", code="job_is_ending")
    detail: str | None = row.status_detail
    return detail


_PERFECT = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled"}
