"""What happened to a job, for those who watch it. Public: no number that depends on private rows; times in minutes."""

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa

from domain.tables import job_event


def append_event(
    connection: sa.Connection,
    job_id: str,
    level: Literal["info", "warn", "error"],
    type: str,
    message: str,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Append an event; the database gives it its number and a time rounded to the minute."""
    connection.execute(
        job_event.insert().values(
            job_id=job_id, level=level, type=type, message=message, data=None if data is None else dict(data)
        )
    )
