"""Budgets in parts that people can add up: spent, reserved and left are 100 %, in hundredths of a percent.

Rounding is decided here, once: what is used is rounded up and what is left is what remains of 100 %, so that a page
never shows less used or more left than there is, and its numbers still add up.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from api.budgets.schemas import Budget
from api.jobs.privacy import JobPrivacy
from domain.kit.share_words import WHOLE, down, up
from dpcore.terms.accounting import SHARE_DIGITS


@dataclass(frozen=True)
class WholeBudget:
    """A budget's parts, together WHOLE."""

    spent: int
    reserved: int
    left: int
    beyond: int = 0
    """What jobs that only another order admits took past the whole: they are outside the parts."""

    @property
    def used(self) -> int:
        return self.spent + self.reserved


@dataclass(frozen=True)
class JobParts:
    """What jobs have of what is used: together with `other` they are all of it."""

    by_job: dict[str, int]
    other: int
    """Of jobs that are not listed, or that only another order admits, and of corrections."""


@dataclass(frozen=True)
class PlanInParts:
    """What is used, what a job would take, and what would be left: together WHOLE."""

    used: int
    takes: int
    left: int


def of_cap(amount: int, cap: int) -> int:
    """What part of a cap an amount of the ledger is, never less than it is."""
    return -(-amount * WHOLE // cap)


def whole_of(budget: Budget) -> WholeBudget | None:
    """None where a lowered limit leaves the main order nothing, so that there are no parts."""
    if budget.share_spent is None or budget.share_reserved is None:
        return None
    left = down(budget.share_left)
    spent = min(up(budget.share_spent), WHOLE - left)
    past = budget.share_spent + budget.share_reserved - 1
    # Two amounts that were each rounded up may come to a hair more than one.
    beyond = up(past) if past > 2 / SHARE_DIGITS else 0
    return WholeBudget(spent, WHOLE - left - spent, left, beyond)


def plan_of(privacy: JobPrivacy) -> PlanInParts | None:
    """None for a job that is outside the parts, and for one of an earlier version."""
    if privacy.share is None or privacy.share_left_before is None or not privacy.main_order:
        return None
    used = WHOLE - down(privacy.share_left_before)
    takes = min(up(privacy.share), WHOLE - used)
    return PlanInParts(used, takes, WHOLE - used - takes)


def apart(total: int, amounts: Sequence[Fraction | float]) -> list[int]:
    """Amounts (parts of one) as numbers that add up to `total`, each within a step of what it is."""
    shown: list[int] = []
    so_far = Fraction(0)
    for amount in amounts:
        so_far += Fraction(amount)
        shown.append(min(total, math.ceil(so_far * WHOLE)) - sum(shown))
    return [*shown[:-1], total - sum(shown[:-1])] if shown else []


def main_place(budget: Budget) -> int | None:
    """Where the main order stands in the ledger's numbers; None for a budget without numbers, or without parts."""
    weights = [Fraction(weight) for weight in budget.ledger.weights]
    place = max(range(len(weights)), key=weights.__getitem__, default=None)
    return place if place is not None and budget.ledger.cap[place] > 0 else None


def walked_back(now: int, changes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Totals after and before each change, the newest change first."""
    after = now
    for change in changes:
        yield after, after - change
        after -= change
