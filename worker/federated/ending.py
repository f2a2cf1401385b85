"""A silo's part comes to its end: settled with what was authorised."""

import sqlalchemy as sa

from domain.federated import rounds
from domain.jobs import life
from ledger.reserve import settle
from worker import ends


def end_part(connection: sa.Connection, job_id: str, fence: int | None) -> None:
    """As one that took part, where a message of it was sent and the federated job was not cancelled and did not fail;
    cancelled otherwise. Without a fence: only while nobody holds the lease. The caller commits."""
    now = rounds.membership(connection, job_id)
    sent = rounds.begun(connection, job_id, 0).sent_rounds
    if sent and now is not None and now.status not in ("cancelled", "failed"):
        settle(connection, job_id, "succeeded", fence=fence)
        life.took_part(connection, job_id)
    else:
        ends.cancel(connection, job_id, fence)


def end_left_behind(connection: sa.Connection, job_id: str) -> None:
    """Of a silo that nobody works on, whose federated job has ended."""
    end_part(connection, job_id, None)
