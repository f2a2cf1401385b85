"""What happens to a job, as its owner may know it: times rounded to the minute, nothing that depends on a row."""

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa

from domain.tables import job_event

Level = Literal["info", "warn", "error"]


def append_event(
    connection: sa.Connection,
    job_id: str,
    level: Level,
    type: str,
    message: str,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Add an event to a job; the caller commits."""
    connection.execute(
        job_event.insert().values(
            job_id=job_id, level=level, type=type, message=message, data=None if data is None else dict(data)
        )
    )


def numbered(job_id: str) -> sa.Select[Any]:
    """A job's events with their number within the job: the table's own sequence would count other tenants' events."""
    number = sa.func.row_number().over(order_by=job_event.c.seq).label("number")
    own = sa.select(job_event, number).where(job_event.c.job_id == job_id).subquery()
    return sa.select(own)
