"""Acting: what a viewer may do to a job that they see. Whether it can be done is the ledger's word."""

import sqlalchemy as sa

from domain.access.grants import Viewer
from domain.jobs import approvals, life, pauses
from domain.jobs.reading import require
from domain.kit.refusals import Conflict
from ledger import reserve, work
from ledger.errors import AlreadySettled, StaleFence


def cancel(connection: sa.Connection, viewer: Viewer, job_id: str) -> None:
    """Stop a job: at once if nobody works on it, otherwise by asking its worker, who settles what was authorised.

    A job that is cancelled already stays so. Raises NotFound, or Conflict for a job that ended otherwise.
    """
    if require(connection, viewer, job_id).status == "cancelled":
        return
    stop(connection, job_id)
    now = require(connection, viewer, job_id).status
    if now in ("succeeded", "failed"):
        raise Conflict(f"the job has {now}; there is nothing to cancel", code="job_has_ended")


def stop(connection: sa.Connection, job_id: str) -> None:
    """At once if nobody works on the job, otherwise by asking its worker; one that has ended stays so."""
    try:
        with connection.begin_nested():
            settled = reserve.settle(connection, job_id, "cancelled")
    except StaleFence:  # a worker holds the lease
        work.request_stop(connection, job_id)
        life.cancelling(connection, job_id)
    except AlreadySettled:  # it ended while we were asked
        pass
    else:
        if settled:
            life.cancelled(connection, job_id)


def pause(connection: sa.Connection, viewer: Viewer, job_id: str) -> None:
    """Hold a job until it is resumed; the caller commits. Raises NotFound or Conflict."""
    pauses.pause(connection, require(connection, viewer, job_id).id)


def resume(connection: sa.Connection, viewer: Viewer, job_id: str) -> bool:
    """Let a paused job go on; the caller commits, then sends a hint if one is due. Raises NotFound or Conflict."""
    return pauses.resume(connection, require(connection, viewer, job_id).id)


def approve(connection: sa.Connection, viewer: Viewer, job_id: str, reason: str | None = None) -> None:
    """Release a job that waits for a steward; the caller is one, commits, then sends a hint.

    Raises NotFound, Forbidden for the key that submitted it, Conflict when it does not wait.
    """
    approvals.approve(connection, require(connection, viewer, job_id), viewer.key_id, reason)


def reject(connection: sa.Connection, viewer: Viewer, job_id: str, reason: str) -> None:
    """Cancel a job that waits for a steward; the caller is one and commits. Raises NotFound or Conflict."""
    approvals.reject(connection, require(connection, viewer, job_id), viewer.key_id, reason)
