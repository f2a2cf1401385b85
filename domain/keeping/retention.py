"""What is not kept for ever: events of jobs that ended long ago, and idempotency keys that have run out."""

from datetime import timedelta

import sqlalchemy as sa

from domain.kit.tables import idempotency, job, job_event

IDEMPOTENCY_KEPT = timedelta(hours=24)
AT_ONCE = 1000  # jobs in one look


def forget_old(engine: sa.Engine, event_days: int) -> None:
    """Delete what has had its time. The ledger, jobs, files' rows and the audit log stay.

    A job loses all of its events or none: their numbers count from the first.
    """
    old = sa.func.now() - timedelta(days=event_days)
    ended = sa.select(job_event.c.job_id).join(job, job.c.id == job_event.c.job_id).where(job.c.finished_at < old)
    with engine.begin() as connection:
        connection.execute(sa.delete(job_event).where(job_event.c.job_id.in_(ended.distinct().limit(AT_ONCE))))
        connection.execute(sa.delete(idempotency).where(idempotency.c.created_at < sa.func.now() - IDEMPOTENCY_KEPT))
