"""What a webhook may be told, and the body that tells it: ids, a type and a minute, as a page shows its owner too."""

import json
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from domain.kit.tables import webhook, webhook_delivery

HookEvent = Literal["job.ended", "approval.wanted", "budget.low", "budget.frozen"]
WANTED: dict[HookEvent, sa.Column[bool]] = {
    "job.ended": webhook.c.job_ended,
    "approval.wanted": webhook.c.approval_wanted,
    "budget.low": webhook.c.budget_low,
    "budget.frozen": webhook.c.budget_frozen,
}
"""The column that says whether a hook wants it."""

OPEN = sa.and_(webhook_delivery.c.delivered_at.is_(None), webhook_delivery.c.given_up_at.is_(None))
"""Of a delivery: not at its end."""


def body_of(delivery: sa.Row[Any]) -> bytes:
    """The same bytes at every attempt."""
    about = "budget" if delivery.event.startswith("budget.") else "job"
    data = {about: delivery.subject} | ({} if delivery.outcome is None else {"status": delivery.outcome})
    at = f"{minute(delivery.at):%Y-%m-%dT%H:%M:%SZ}"
    return json.dumps({"type": delivery.event, "timestamp": at, "data": data}, separators=(",", ":")).encode()


def minute(at: datetime) -> datetime:
    """In UTC, rounded down."""
    return at.astimezone(UTC).replace(second=0, microsecond=0)
