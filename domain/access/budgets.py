"""Budgets as the service offers them: opened with public defaults, read within one tenant."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array

from domain.access.grants import Viewer, readable_budgets
from domain.kit.ids import new_id
from domain.kit.refusals import Invalid, NotFound
from domain.kit.tables import api_key, job
from dpcore.terms import accounting
from ledger import grants
from ledger.budgets import Balance, Reference, balance, open_budget
from ledger.errors import translated
from ledger.tables import budget, entry, reservation

DEFAULT_REFERENCE = Reference(sample_rate=0.01, steps=500)


def default_delta(declared_size: int) -> Decimal:
    """The largest power of ten that is at most 1 / (10 x declared size): a chance well below one unit in the file."""
    return Decimal(1).scaleb(-1 - _digits_above(declared_size))


def _digits_above(size: int) -> int:
    """Least k with 10^k >= size."""
    return len(str(size - 1)) if size > 1 else 0


def open_new(
    connection: sa.Connection,
    tenant_id: str,
    *,
    name: str,
    epsilon: Decimal,
    delta: Decimal,
    unit: str = "record",
    max_records_per_user: int | None = None,
    held_out: Decimal = Decimal(0),
    reference: Reference = DEFAULT_REFERENCE,
) -> Balance:
    """Open a budget and read it back; the caller commits. Raises Invalid with the smallest epsilon that works, and
    ledger.errors.LedgerIncomplete."""
    require_whole_unit(unit, max_records_per_user)
    id = new_id("budget", "-")
    try:
        with translated():
            open_budget(
                connection,
                id=id,
                tenant_id=tenant_id,
                name=name,
                epsilon=epsilon,
                delta=delta,
                unit=unit,
                max_records_per_user=max_records_per_user,
                held_out=held_out,
                reference=reference,
            )
    except accounting.DoesNotFit as error:
        raise Invalid(str(error), code="epsilon_too_small", param="epsilon", smallest_epsilon=error.smallest) from error
    return balance(connection, id)


def require_whole_unit(unit: str, max_records_per_user: int | None, within: str = "") -> None:
    """Users, and users alone, come with a bound on their records. Raises Invalid; `within` goes before the field."""
    if (unit == "user") != (max_records_per_user is not None):
        message = "leave it out" if unit == "record" else "send the most records of one user that are kept in a file"
        raise Invalid(
            f"max_records_per_user belongs to unit 'user': {message}",
            code="invalid_request",
            param=f"{within}max_records_per_user",
        )


def require(connection: sa.Connection, viewer: Viewer, budget_id: str) -> sa.Row[Any]:
    """The budget, if the viewer may read it. Raises NotFound."""
    row = connection.execute(of_tenant(viewer).where(budget.c.id == budget_id)).one_or_none()
    if row is None:
        raise NotFound("budget")
    return row


def require_own(connection: sa.Connection, tenant_id: str, budget_id: str, param: str | None = None) -> sa.Row[Any]:
    """The tenant's budget, for its steward, who needs no grant. Raises NotFound."""
    row = connection.execute(
        sa.select(budget).where(budget.c.tenant_id == tenant_id, budget.c.id == budget_id)
    ).one_or_none()
    if row is None:
        raise NotFound("budget", param)
    return row


def of_tenant(viewer: Viewer) -> sa.Select[Any]:
    """The budgets of a tenant that the viewer may read."""
    return readable_budgets(viewer)


def set_rules(
    connection: sa.Connection, viewer: Viewer, budget_id: str, changes: Mapping[str, Any], reason: str
) -> None:
    """What jobs to come wait for and must say, and how long they may wait; the caller is a steward and commits.

    changes: any of approval_above, queue_days and require_intended_use; what they leave out stays. Raises NotFound.
    """
    locked = of_tenant(viewer).where(budget.c.id == budget_id).with_for_update(key_share=True, of=budget)
    row = connection.execute(locked).one_or_none()  # two stewards at once: neither takes back what the other set
    if row is None:
        raise NotFound("budget")
    rules = {name: row._mapping[name] for name in ("approval_above", "queue_days", "require_intended_use")}
    grants.set_rules(connection, budget_id, **{**rules, **changes}, by=viewer.key_id, reason=reason)


def rename(connection: sa.Connection, viewer: Viewer, budget_id: str, name: str) -> None:
    """Another name for people: no entry, since nothing that the budget promises depends on it. Raises NotFound."""
    require(connection, viewer, budget_id)
    connection.execute(sa.update(budget).where(budget.c.id == budget_id).values(name=name))


def entries(row: sa.Row[Any]) -> sa.Select[Any]:
    """A budget's entries with their jobs, what is spent and reserved after each, and the keys that decided or submitted
    by id and name; the budget is the caller's."""

    def after(change: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        places = range(1, len(row.orders) + 1)
        return array([sa.func.sum(change[i]).over(order_by=entry.c.seq) for i in places])

    totals = (
        sa.select(
            entry,
            reservation.c.job_id,
            (after(entry.c.spent_change)).label("spent_after"),
            (after(entry.c.reserved_change)).label("reserved_after"),
        )
        .join(reservation, reservation.c.id == entry.c.reservation_id, isouter=True)
        .where(entry.c.budget_id == row.id)
        .subquery()
    )
    submitter = sa.select(job.c.created_by).where(job.c.id == totals.c.job_id, totals.c.kind == "reserve")
    by_key = sa.func.coalesce(totals.c.detail["by"].astext, submitter.correlate(totals).scalar_subquery())
    name = sa.select(api_key.c.name).where(api_key.c.id == by_key, api_key.c.tenant_id == row.tenant_id)
    by_name = name.correlate(totals).scalar_subquery()
    return sa.select(totals, by_key.label("by_key"), by_name.label("by_name"))


def held_by_jobs(connection: sa.Connection, budget_id: str, place: int) -> dict[str, int]:
    """What each job has of a budget at the order of this place, in ledger units: spent, or reserved until it ends.
    Which of these jobs the caller may see is the caller's to ask; the budget is its own."""
    change = entry.c.spent_change[place + 1] + entry.c.reserved_change[place + 1]
    found = (
        sa.select(reservation.c.job_id, sa.func.sum(change).label("held"))
        .join(entry, entry.c.reservation_id == reservation.c.id)
        .where(reservation.c.budget_id == budget_id)
        .group_by(reservation.c.job_id)
    )
    return {row.job_id: int(row.held) for row in connection.execute(found)}


def reference_jobs_left(held: Balance, reference: Mapping[str, Any]) -> int:
    """How many jobs like the reference job still fit: at its own noise, or at that of a job which fills the budget."""
    if held.frozen_reason is not None:
        return 0
    rate, steps, sigma = reference["sample_rate"], reference["steps"], reference["noise_multiplier"]
    if sigma is None:
        try:
            sigma = accounting.calibrate(held.epsilon, held.delta, held.filter, (accounting.Part(rate, steps),))
        except accounting.DoesNotFit:  # under a limit that was lowered since
            return 0
    return accounting.how_many_fit(
        held.cap, held.used, accounting.cost(accounting.curve(sigma, rate, held.filter.orders), steps)
    )


def guarantee(epsilon_claim: float, held: Balance) -> str:
    """What the budget promises, in a sentence. epsilon_claim: the highest limit it ever had."""
    if not held.readable:
        return "The row of this budget cannot be read: nothing is admitted, and what it promises stands in its entries."
    return (
        f"Everything that all jobs on this budget ever release is, together, ({epsilon_claim:g}, {held.delta:g})-"
        f"differentially private for each {held.unit} (add or remove one), however the jobs were chosen."
    )
