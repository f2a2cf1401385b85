"""Webhooks of a tenant: registered, listed, removed by its stewards."""

import secrets
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from domain.access.grants import Viewer
from domain.kit.ids import new_id
from domain.kit.refusals import Conflict, NotFound
from domain.kit.tables import webhook, webhook_delivery
from domain.webhooks.events import OPEN, WANTED, HookEvent
from domain.webhooks.outbox import begin

MOST = 100
"""Of one tenant."""


def register(
    connection: sa.Connection,
    viewer: Viewer,
    *,
    url: str,
    events: Collection[HookEvent],
    low_below: float,
    description: str | None,
) -> sa.Row[Any]:
    """A hook, which is told of what happens from now on; the caller is a steward, has looked at the address, and
    commits. Raises Conflict."""
    count = sa.select(sa.func.count()).where(webhook.c.tenant_id == viewer.tenant_id)
    if connection.execute(count).scalar_one() >= MOST:
        raise Conflict(f"there are {MOST} webhooks already; remove one first", code="too_many_webhooks")
    made = connection.execute(
        webhook.insert()
        .values(
            id=new_id("hook"),
            tenant_id=viewer.tenant_id,
            created_by=viewer.key_id,
            url=url,
            description=description,
            low_below=low_below,
            salt=secrets.token_bytes(16),
            **{column.name: event in events for event, column in WANTED.items()},
        )
        .returning(webhook)
    ).one()
    begin(connection, made)
    return made


def of_tenant(viewer: Viewer) -> sa.Select[Any]:
    """The tenant's hooks, newest first, with how many deliveries wait and how many were given up."""
    mine = sa.select(sa.func.count()).where(webhook_delivery.c.webhook_id == webhook.c.id)
    waiting = mine.where(OPEN).scalar_subquery().label("waiting")
    given_up = mine.where(webhook_delivery.c.given_up_at.is_not(None)).scalar_subquery().label("given_up")
    return (
        sa.select(webhook, waiting, given_up)
        .where(webhook.c.tenant_id == viewer.tenant_id)
        .order_by(webhook.c.created_at.desc(), webhook.c.id)
    )


def remove(connection: sa.Connection, viewer: Viewer, hook_id: str) -> sa.Row[Any]:
    """As it was; nothing more is sent to it. The caller commits. Raises NotFound."""
    found = connection.execute(of_tenant(viewer).where(webhook.c.id == hook_id)).one_or_none()
    if found is None:
        raise NotFound("webhook")
    connection.execute(sa.delete(webhook).where(webhook.c.id == hook_id, webhook.c.tenant_id == viewer.tenant_id))
    return found
