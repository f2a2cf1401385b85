"""Jobs that nobody began in time, that no steward approved in time, that stayed paused or never came to their end:
given up, so that what they reserved goes back. Any process may do it, the API's included, for want of a worker is why
most wait."""

import logging

import sqlalchemy as sa

from domain.jobs import life
from domain.jobs.life import LONGEST_PAUSE, Limit
from domain.kit.tables import job
from ledger.errors import LedgerError
from ledger.reserve import settle
from ledger.tables import reservation, work

_AT_ONCE = 100  # jobs in one look
_now = sa.func.clock_timestamp()
_unstarted = sa.and_(work.c.fence == 0, reservation.c.starts_by <= _now)
_paused_long = sa.and_(work.c.paused_at.is_not(None), work.c.paused_at <= _now - LONGEST_PAUSE)
logger = logging.getLogger(__name__)


def end_expired(engine: sa.Engine, *which: sa.ColumnElement[bool]) -> list[str]:
    """Cancel open jobs that nobody works on and whose time is over; answers their ids. Steps that were authorised stay
    charged, the rest is given back. which: conditions on the work of those that the caller's login may end."""
    late = (
        sa.select(
            job.c.id, work.c.fence, sa.func.bool_or(reservation.c.waits).label("waits"), _paused_long.label("paused")
        )
        .join(work, work.c.job_id == job.c.id)
        .join(reservation, reservation.c.job_id == job.c.id)
        .where(
            reservation.c.state == "reserved",
            sa.or_(_unstarted, reservation.c.expires_at <= _now, _paused_long),
            sa.or_(work.c.lease_until.is_(None), work.c.lease_until <= _now),
            *which,
        )
        .group_by(job.c.id, work.c.fence, work.c.paused_at)
        .order_by(job.c.created_at, job.c.id)
        .limit(_AT_ONCE)
    )
    with engine.connect() as connection:
        found = connection.execute(late).all()
    ended = []
    for row in found:
        try:
            with engine.begin() as connection:
                _end(connection, row.id, _why(row.fence, row.waits, row.paused))
        except LedgerError as error:  # claimed or settled in the meantime
            logger.info("job %s: left alone: %s", row.id, type(error).__name__)
        else:
            ended.append(row.id)
    return ended


def _why(fence: int, waits: bool, paused: bool) -> Limit:
    if waits:
        return "not_approved"
    if paused:
        return "paused_too_long"
    return "not_started" if fence == 0 else "not_finished"


def _end(connection: sa.Connection, job_id: str, limit: Limit) -> None:
    if settle(connection, job_id, "cancelled"):
        life.expired(connection, job_id, limit)  # whatever its row says, what it reserved goes back
