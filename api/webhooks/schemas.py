"""Webhooks as they go over the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field, StringConstraints

from api.fields import Body, Name
from domain.webhooks.events import WANTED, HookEvent, minute

Address = Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://[!-~]+$")]


class NewWebhook(Body):
    """Where to tell, and of what."""

    url: Address = Field(description="https, of a host that the operator allows (TACIT_WEBHOOK_HOSTS)")
    events: list[HookEvent] = Field(min_length=1, max_length=4)
    low_below: float = Field(default=0.1, gt=0, lt=1, description="budget.low: less than this share of the cap is left")
    description: Name | None = None


class Webhook(BaseModel):
    """A webhook without its secret. Times are to the minute."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    events: list[HookEvent]
    low_below: float
    description: str | None
    created_at: int
    created_by: str = Field(description="the key that made it; when it dies, nothing more is sent")
    waiting: int = Field(description="messages that are not delivered yet")
    given_up: int = Field(description="messages that could not be delivered within a day, of the last month")
    last_success_at: int | None
    last_failure_at: int | None
    last_failure: str | None = Field(description="why the last attempt that failed did")


class CreatedWebhook(Webhook):
    """A new webhook, with the secret that its messages are signed with: shown this once."""

    secret: str


class WebhookList(BaseModel):
    """All webhooks of the tenant, newest first; the list is short and has no pages."""

    object: Literal["list"] = "list"
    data: list[Webhook]


def webhook_of(row: sa.Row[Any]) -> Webhook:
    """A row of domain.webhooks.hooks.of_tenant, or of `webhook` alone for a new one."""
    columns = row._mapping
    return Webhook(
        id=row.id,
        url=row.url,
        events=[event for event, column in WANTED.items() if columns[column.name]],
        low_below=row.low_below,
        description=row.description,
        created_at=int(minute(row.created_at).timestamp()),
        created_by=row.created_by,
        waiting=columns.get("waiting", 0),
        given_up=columns.get("given_up", 0),
        last_success_at=_time(row.last_success_at),
        last_failure_at=_time(row.last_failure_at),
        last_failure=row.last_failure,
    )


def _time(at: datetime | None) -> int | None:
    return None if at is None else int(minute(at).timestamp())
