"""What happens to a job, as its owner may know it: times rounded to the minute, nothing that depends on a row."""

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa

from domain.kit.tables import job, job_event

EventName = Literal[
    "job.queued",
    "job.waiting",
    "job.invited",
    "job.joined",
    "job.approved",
    "job.rejected",
    "job.started",
    "job.pausing",
    "job.paused",
    "job.resumed",
    "job.cancelling",
    "job.cancelled",
    "job.expired",
    "job.failed",
    "job.succeeded",
    "steps.authorised",
    "round.closed",
    "synthetic.failed",
    "audit.finished",
    "job.noted",
]
"""What an event is about, for programs. job.noted: it was written before events had names."""
_LEVELS = {"job.rejected": "warn", "job.expired": "warn", "job.failed": "error", "synthetic.failed": "warn"}


def append_event(
    connection: sa.Connection,
    job_id: str,
    name: EventName,
    message: str,
    data: Mapping[str, Any] | None = None,
    *,
    new: bool = False,
) -> None:
    """Add an event to a job; the caller commits.

    The job is locked first, so that its events become visible in the order of their numbers: a stream that has passed
    on number 5 has missed none before it. new: the job is of this transaction, and nobody else sees it.
    """
    if not new:
        connection.execute(sa.select(job.c.id).where(job.c.id == job_id).with_for_update(key_share=True))
    connection.execute(
        job_event.insert().values(
            job_id=job_id,
            name=name,
            level=_LEVELS.get(name, "info"),
            type="metrics" if name == "steps.authorised" else "message",
            message=message,
            data=None if data is None else dict(data),
        )
    )


def numbered(job_id: str) -> sa.Select[Any]:
    """A job's events with their number within the job: the table's own sequence would count other tenants' events."""
    number = sa.func.row_number().over(order_by=job_event.c.seq).label("number")
    own = sa.select(job_event, number).where(job_event.c.job_id == job_id).subquery()
    return sa.select(own)
