"""Opening a budget and reading what it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isfinite, lcm
from typing import Any

import sqlalchemy as sa

from dpcore.terms import accounting
from ledger.tables import budget


class UnreadableBudget(ValueError):
    """The numbers of a budget's row make no budget: nothing is reckoned with them."""


@dataclass(frozen=True)
class Reference:
    """The public job that a budget's weights are chosen for, repeated until the budget is full."""

    sample_rate: float
    steps: int
    noise_multiplier: float | None = None
    """None: the noise at which one such job fills the budget."""


@dataclass(frozen=True)
class Balance:
    """A budget's numbers, read in one statement; orders and units as in dpcore.terms.accounting."""

    id: str
    tenant_id: str
    epsilon: float
    delta: float
    unit: str
    max_records_per_user: int | None
    filter: accounting.Filter
    cap: tuple[int, ...]
    spent: tuple[int, ...]
    reserved: tuple[int, ...]
    frozen_reason: str | None
    approval_above: float | None = None
    require_intended_use: bool = False
    held_out: float = 0.0
    """The share of its units that no job trains on."""
    readable: bool = True
    """False: its row makes no budget, so that it has no numbers and counts as used up."""

    @property
    def used(self) -> tuple[int, ...]:
        """Spent and reserved together."""
        return tuple(s + r for s, r in zip(self.spent, self.reserved, strict=True))

    def epsilon_of(self, amount: Sequence[int]) -> float:
        """What this amount alone would take of the empty budget, for display."""
        if not self.readable:
            return self.epsilon
        if not any(amount):
            return 0.0
        saturated = tuple(min(a, accounting.SATURATION) for a in amount)
        return min(self.epsilon, accounting.epsilon_alone(saturated, self.delta, self.filter))

    def share_of(self, amount: Sequence[int]) -> float | None:
        """What part of the cap at the main order this amount is, rounded up; None where a lowered limit leaves that
        order nothing."""
        if not self.readable:
            return 1.0
        share = accounting.share_up(amount, self.cap, self.filter)
        return share if isfinite(share) else None

    @property
    def share_left(self) -> float:
        """What part of the cap at the main order nobody has, rounded down: a job of at most this share fits."""
        return accounting.share_left(self.cap, self.used, self.filter) if self.readable else 0.0


def open_budget(
    connection: sa.Connection,
    *,
    id: str,
    tenant_id: str,
    name: str,
    epsilon: Decimal,
    delta: Decimal,
    unit: str,
    max_records_per_user: int | None,
    held_out: Decimal = Decimal(0),
    reference: Reference,
) -> None:
    """Insert a budget; the database computes its caps and writes its first entry.

    Raises dpcore.terms.accounting.DoesNotFit when the reference job cannot fit, with the smallest epsilon that works.
    """
    filter = accounting.reference_filter(
        float(epsilon), float(delta), reference.sample_rate, reference.steps, reference.noise_multiplier
    )
    denominator = lcm(*(w.denominator for w in filter.weights))
    connection.execute(
        budget.insert().values(
            id=id,
            tenant_id=tenant_id,
            name=name,
            epsilon=epsilon,
            delta=delta,
            unit=unit,
            max_records_per_user=max_records_per_user,
            held_out=held_out,
            reference={
                "sample_rate": reference.sample_rate,
                "steps": reference.steps,
                "noise_multiplier": reference.noise_multiplier,
            },
            orders=list(filter.orders),
            weight_numerators=[int(w * denominator) for w in filter.weights],
            weight_denominator=denominator,
        )
    )


def balance(connection: sa.Connection, budget_id: str) -> Balance:
    """Read one budget. Raises sqlalchemy.exc.NoResultFound."""
    return as_balance(connection.execute(sa.select(budget).where(budget.c.id == budget_id)).one())


def as_filter(row: sa.Row[tuple[object, ...]]) -> accounting.Filter:
    """The orders and weights in a row of ledger.budget."""
    r = row._mapping
    weights = tuple(Fraction(n, r["weight_denominator"]) for n in r["weight_numerators"])
    return accounting.Filter(tuple(r["orders"]), weights)


def as_balance(row: sa.Row[tuple[object, ...]]) -> Balance:
    """A row of ledger.budget as numbers to reckon with. Raises UnreadableBudget."""
    r = row._mapping
    try:
        found = Balance(
            id=r["id"],
            tenant_id=r["tenant_id"],
            epsilon=float(r["epsilon"]),
            delta=float(r["delta"]),
            unit=r["unit"],
            max_records_per_user=r["max_records_per_user"],
            filter=as_filter(row),
            cap=_integers(r["cap"]),
            spent=_integers(r["spent"]),
            reserved=_integers(r["reserved"]),
            frozen_reason=r["frozen_reason"],
            approval_above=None if r["approval_above"] is None else float(r["approval_above"]),
            require_intended_use=r["require_intended_use"] is True,
            held_out=float(r["held_out"]),
        )
        job = r["reference"]
        Reference(float(job["sample_rate"]), int(job["steps"]), job["noise_multiplier"])
        shares, orders = found.filter.weights, found.filter.orders
        whole = found.epsilon > 0 and 0 < found.delta < 1 and sum(shares) == 1 and min(shares) > 0 and min(orders) > 1
        whole = whole and {len(shares), len(found.cap), len(found.spent), len(found.reserved)} == {len(orders)}
        whole = whole and 0 <= found.held_out <= 0.5
    except (TypeError, ValueError, LookupError, ArithmeticError):
        whole = False
    if not whole:
        raise UnreadableBudget("its numbers cannot be read: a row of the ledger is damaged")
    return found


def for_display(row: sa.Row[tuple[object, ...]]) -> Balance:
    """As `as_balance`, but an unreadable budget is shown: frozen, without numbers."""
    try:
        return as_balance(row)
    except UnreadableBudget as error:
        r = row._mapping
        return Balance(
            id=r["id"],
            tenant_id=r["tenant_id"],
            epsilon=_number(r["epsilon"]),
            delta=_number(r["delta"]),
            unit=str(r["unit"]),
            max_records_per_user=r["max_records_per_user"],
            filter=accounting.Filter((), ()),
            cap=(),
            spent=(),
            reserved=(),
            frozen_reason=r["frozen_reason"] or str(error),
            readable=False,
        )


def _integers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, Decimal) and value.is_finite() else 0.0
