"""What is to be told: looked for in jobs and budgets as they stand, kept as rows, and given to whoever sends.

Nothing that moves a job or charges a budget writes here or waits for it. A hook is looked after by one process at a
time (SKIP LOCKED); a delivery is sent by whoever holds its lease, and not before every earlier one of the same hook
about the same job or budget is at its end. Locks: the hook, then its deliveries; never anything else.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from domain.jobs.life import WAITING
from domain.kit.ids import new_id
from domain.kit.logs import describe
from domain.kit.statuses import ENDED
from domain.kit.tables import api_key, job, webhook, webhook_budget, webhook_delivery
from domain.webhooks.budgets import stand
from domain.webhooks.events import OPEN, HookEvent, minute
from ledger.tables import budget

AGAIN = timedelta(hours=1)
"""How far before the last look jobs are looked at again. What ends a job is committed within a minute or two of the
time that its row says; whatever is found twice is told once."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
"""Between two attempts: twice as long after each."""
GIVEN_UP_AFTER = timedelta(days=1)
"""Since a delivery was put here."""
LEAST_ATTEMPTS = 12
"""Some three hours of them: one that waited all day for an earlier one to be given up is not given up with it."""
LEASE = timedelta(minutes=3)
"""In which an attempt, which has ten seconds, is over, a name server that hangs included."""
MOVED = timedelta(minutes=5)
"""How old the note of the last look may become: not every look writes."""
EACH, TOGETHER = 4, 32
"""Deliveries that are sent at once: of one hook, so that one that hangs does not keep others waiting, and in all."""
logger = logging.getLogger(__name__)


class Outbox:
    """The deliveries of all tenants. now: the database's clock unless a test has another."""

    def __init__(self, engine: sa.Engine, now: Callable[[], sa.ColumnElement[datetime]] | None = None) -> None:
        self._engine = engine
        self._now: Callable[[], sa.ColumnElement[Any]] = now or sa.func.clock_timestamp

    def look(self) -> None:
        """Put aside what is to be told, for every hook that no other process looks after now."""
        with self._engine.connect() as connection:
            hooks = connection.execute(sa.select(webhook.c.id)).scalars().all()
        for hook_id in hooks:
            try:
                self._look_of(hook_id)
            except sa.exc.OperationalError:  # the database is away, for all of them
                raise
            except Exception as error:  # noqa: BLE001  whatever is wrong with one, the others are told
                logger.warning("webhook %s was not looked after: %s", hook_id, describe(error))

    def _look_of(self, hook_id: str) -> None:
        with self._engine.begin() as connection:
            found = sa.select(webhook).where(webhook.c.id == hook_id).with_for_update(skip_locked=True)
            hook = connection.execute(found).one_or_none()
            if hook is not None:
                self._look_for(connection, hook)

    def _look_for(self, connection: sa.Connection, hook: sa.Row[Any]) -> None:
        looked = self._now()
        if hook.approval_wanted:
            self._tell_jobs(
                connection,
                hook,
                "approval.wanted",
                sa.func.date_trunc("minute", job.c.created_at),
                sa.and_(job.c.status == "queued", job.c.status_detail == WAITING, job.c.created_at >= hook.created_at),
            )
        if hook.job_ended:
            since = sa.func.least(hook.looked_at, looked) - AGAIN
            recent = sa.and_(job.c.finished_at >= since, job.c.finished_at >= minute(hook.created_at))
            at = sa.func.date_trunc("minute", job.c.finished_at)
            self._tell_jobs(connection, hook, "job.ended", at, sa.and_(job.c.status.in_(ENDED), recent), job.c.status)
        if hook.budget_low or hook.budget_frozen:
            self._tell_budgets(connection, hook)
        old = sa.not_(webhook.c.looked_at.between(looked - MOVED, looked))
        connection.execute(sa.update(webhook).where(webhook.c.id == hook.id, old).values(looked_at=looked))

    def _tell_jobs(
        self,
        connection: sa.Connection,
        hook: sa.Row[Any],
        event: HookEvent,
        at: sa.ColumnElement[Any],
        which: sa.ColumnElement[bool],
        outcome: sa.ColumnElement[Any] | None = None,
    ) -> None:
        told = sa.exists().where(
            webhook_delivery.c.webhook_id == hook.id,
            webhook_delivery.c.subject == job.c.id,
            webhook_delivery.c.event == event,
        )
        wanted = sa.select(job.c.id, at.label("at"), (sa.null() if outcome is None else outcome).label("outcome"))
        wanted = wanted.where(job.c.tenant_id == hook.tenant_id, which, ~told).order_by(at, job.c.id)
        for row in connection.execute(wanted):
            _put(connection, hook, event, row.id, row.at, row.outcome)

    def _tell_budgets(self, connection: sa.Connection, hook: sa.Row[Any]) -> None:
        before = webhook_budget.alias()
        moved = (
            sa.select(budget, before.c.low.label("was_low"), before.c.frozen.label("was_frozen"))
            .join(before, sa.and_(before.c.webhook_id == hook.id, before.c.budget_id == budget.c.id), isouter=True)
            .where(budget.c.tenant_id == hook.tenant_id, before.c.seq.is_distinct_from(budget.c.head_seq))
            .order_by(budget.c.id)
        )
        for row in connection.execute(moved).all():
            now = stand(row, hook.low_below)
            at = connection.execute(sa.select(sa.func.date_trunc("minute", self._now()))).scalar_one()
            if hook.budget_low and now["low"] and not row.was_low:
                _put(connection, hook, "budget.low", row.id, at)
            if hook.budget_frozen and now["frozen"] and not row.was_frozen:
                _put(connection, hook, "budget.frozen", row.id, at)
            said = insert(webhook_budget).values(webhook_id=hook.id, budget_id=row.id, **now)
            connection.execute(said.on_conflict_do_update(index_elements=["webhook_id", "budget_id"], set_=now))

    def claim(self) -> Sequence[sa.Row[Any]]:
        """Deliveries to send now, each with its hook and whether that one's key is alive: the first of a hook about a
        job or budget, and nobody else's until their lease is over."""
        now, mine = self._now(), webhook_delivery
        earlier = mine.alias()
        before = sa.exists().where(
            earlier.c.webhook_id == mine.c.webhook_id,
            earlier.c.subject == mine.c.subject,
            earlier.c.seq < mine.c.seq,
            earlier.c.delivered_at.is_(None),
            earlier.c.given_up_at.is_(None),
        )
        free = sa.and_(OPEN, mine.c.due_at <= now, sa.func.coalesce(mine.c.leased_until <= now, sa.true()))
        order = sa.func.row_number().over(partition_by=mine.c.webhook_id, order_by=(mine.c.due_at, mine.c.seq))
        lined = sa.select(mine.c.id, mine.c.due_at, order.label("place")).where(free, ~before).subquery()
        first = sa.select(lined.c.id).where(lined.c.place <= EACH).order_by(lined.c.due_at).limit(TOGETHER)
        taken = sa.select(mine.c.id).where(mine.c.id.in_(first), free).with_for_update(skip_locked=True)
        alive = sa.and_(
            api_key.c.revoked_at.is_(None), sa.func.coalesce(api_key.c.expires_at > sa.func.now(), sa.true())
        )
        with self._engine.begin() as connection:
            ids = connection.execute(taken).scalars().all()
            if not ids:
                return []
            connection.execute(sa.update(mine).where(mine.c.id.in_(ids)).values(leased_until=now + LEASE))
            held: sa.Select[Any] = (
                sa.select(
                    *(mine.c[name] for name in ("id", "webhook_id", "event", "subject", "outcome", "at")),
                    *(mine.c[name] for name in ("created_at", "attempts", "leased_until")),
                    alive.label("alive"),
                )
                .join(webhook, webhook.c.id == mine.c.webhook_id)
                .join(api_key, api_key.c.id == webhook.c.created_by)
                .where(mine.c.id.in_(ids))
                .order_by(mine.c.seq)
            )
            return connection.execute(held).all()

    def hooks_of(self, deliveries: Sequence[sa.Row[Any]]) -> dict[str, sa.Row[Any]]:
        """Their hooks, whole, by id."""
        ids = {delivery.webhook_id for delivery in deliveries}
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(webhook).where(webhook.c.id.in_(ids)))
            return {row.id: row for row in rows}

    def settle(self, delivery: sa.Row[Any], trouble: str | None) -> None:
        """How an attempt went. trouble: None where it arrived, or why it did not, for the hook's owner."""
        now, table = self._now(), webhook_delivery
        pause = min(FIRST_PAUSE * 2 ** min(delivery.attempts, 20), LONGEST_PAUSE)
        old = sa.literal(delivery.created_at) + GIVEN_UP_AFTER <= now
        late = sa.and_(old, sa.literal(delivery.attempts + 1 >= LEAST_ATTEMPTS))
        values: dict[str, Any] = {"attempts": table.c.attempts + 1, "leased_until": None}
        if trouble is None:
            values |= {"delivered_at": now}
        else:
            values |= {"due_at": now + pause, "given_up_at": sa.case((late, now))}
        held = sa.and_(table.c.id == delivery.id, table.c.leased_until == delivery.leased_until)
        noted: dict[str, Any] = {"last_success_at": now}
        if trouble is not None:
            noted = {"last_failure_at": now, "last_failure": trouble[:200]}
        with self._engine.begin() as connection:
            connection.execute(sa.update(webhook).where(webhook.c.id == delivery.webhook_id).values(**noted))
            connection.execute(sa.update(table).where(held).values(**values))


def begin(connection: sa.Connection, hook: sa.Row[Any]) -> None:
    """Take things as they stand for a hook of this transaction, so that it is told of nothing that was before it: of
    jobs a row says the minute of their end alone."""
    if hook.job_ended:
        this = sa.and_(job.c.tenant_id == hook.tenant_id, job.c.finished_at >= minute(hook.created_at))
        for ended in connection.execute(sa.select(job.c.id, job.c.status, job.c.finished_at).where(this)):
            _put(connection, hook, "job.ended", ended.id, minute(ended.finished_at), ended.status)
        mine = webhook_delivery.c.webhook_id == hook.id
        connection.execute(sa.update(webhook_delivery).where(mine).values(delivered_at=sa.func.now()))
    if hook.budget_low or hook.budget_frozen:
        for row in connection.execute(sa.select(budget).where(budget.c.tenant_id == hook.tenant_id)):
            now = stand(row, hook.low_below)
            connection.execute(insert(webhook_budget).values(webhook_id=hook.id, budget_id=row.id, **now))


def _put(
    connection: sa.Connection,
    hook: sa.Row[Any],
    event: HookEvent,
    subject: str,
    at: datetime,
    outcome: str | None = None,
) -> None:
    values = {"id": new_id("msg"), "webhook_id": hook.id, "event": event, "subject": subject}
    connection.execute(webhook_delivery.insert().values(**values, outcome=outcome, at=at).inline())
