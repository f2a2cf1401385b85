"""What is not kept for ever: events of jobs that ended long ago, idempotency keys that have run out, and what webhooks
were told."""

from datetime import timedelta

import sqlalchemy as sa

from domain.kit.tables import idempotency, job, job_event, webhook, webhook_delivery

IDEMPOTENCY_KEPT = timedelta(hours=24)
TOLD_KEPT = timedelta(days=30)
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
        told = sa.func.coalesce(webhook_delivery.c.delivered_at, webhook_delivery.c.given_up_at)
        # By the hook's last look, not by the clock: a look goes back to what was told shortly before the one before it.
        past = webhook_delivery.c.created_at < webhook.c.looked_at - TOLD_KEPT
        of_hook = webhook.c.id == webhook_delivery.c.webhook_id
        connection.execute(sa.delete(webhook_delivery).where(of_hook, past, told < sa.func.now() - TOLD_KEPT))
