"""A statement's numbers, counted again from its noise, rates and steps by the library alone."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from domain.statements.models import BudgetStatement, JobStatement, StatedFilter, StatedOdds
from dpcore.terms import accounting, odds
from dpcore.terms.accounting import Curve, Filter, Part

SAME = 1e-9
"""Nats that an epsilon may be off by: what floating point leaves open."""
PRICE = 1e-6
"""By what part a price of the database may lie below the library's: both are rounded up, each in its own way."""
MOST = 10_000_000
"""Steps that a phase can have."""
ODDS = 2e-4
"""By how much odds may lie below those that are computed here: another version of the library may round otherwise."""


def recount_job(said: JobStatement) -> Iterator[str]:
    """What does not hold, in words; nothing where all does."""
    account, claim = said.account, said.claim
    try:
        known = filter_of(account.filter)
    except ValueError as error:
        yield str(error)
        return
    for phase in said.phases:
        if not (0 < phase.sample_rate <= 1 and 0.01 <= phase.noise_multiplier <= 1e6 and phase.steps_planned <= MOST):
            yield f"the numbers of the phase {phase.name} are none that a job can have"
            return
        least = accounting.curve(phase.noise_multiplier, phase.sample_rate, known.orders)
        if not _covers(phase.step_cost, least):
            yield f"the price of a step of the phase {phase.name} is less than its noise and rate cost"
        if not 0 <= phase.steps_authorised <= phase.steps_charged <= phase.steps_planned:
            yield f"the phase {phase.name} is charged for fewer steps than were authorised, or more than planned"
    costs = [accounting.cost(tuple(phase.step_cost), phase.steps_charged) for phase in said.phases]
    if not costs or not _covers(claim.cost, accounting.total(costs)):
        yield "the cost is less than that of the phases' steps"
    yield from _epsilon(claim.epsilon, claim.cost, claim.delta, known)
    if claim.delta != account.delta:
        yield "the job's delta is not its budget's"
    if said.budget_odds is not None:
        found = odds.of_filter(account.epsilon_claim, account.delta, known)
        yield from _odds(said.budget_odds, found, "the budget")
    if said.odds is not None:
        parts = tuple(Part(p.sample_rate, p.steps_authorised, p.noise_multiplier) for p in said.phases)
        yield from _odds(said.odds, odds.of_job(parts), "the job")


def recount_budget(said: BudgetStatement) -> Iterator[str]:
    """What does not hold, in words; nothing where all does."""
    try:
        known = filter_of(said.filter)
    except ValueError as error:
        yield str(error)
        return
    if not _covers(accounting.caps(said.epsilon, said.delta, known), said.cap, 0.0):
        yield "the caps are more than the limit, the delta and the weights allow"
    used = [s + r for s, r in zip(said.spent, said.reserved, strict=True)]
    claimed = accounting.caps(said.epsilon_claim, said.delta, known)
    if said.within != accounting.fits(claimed, used, known.nothing):
        yield "whether all that was charged is within the claim is not as stated"
    yield from _epsilon(said.epsilon_used, used, said.delta, known)
    if said.odds is not None:
        yield from _odds(said.odds, odds.of_filter(said.epsilon_claim, said.delta, known), "the budget")
    for job in said.jobs:
        yield from _epsilon(job.epsilon, job.cost, said.delta, known)


def filter_of(said: StatedFilter) -> Filter:
    """Raises ValueError for what is none."""
    weights = tuple(Fraction(weight) for weight in said.weights)
    orders = tuple(said.orders)
    if len(weights) != len(orders) or sum(weights) != 1 or min(weights) <= 0 or min(orders) < 2:
        raise ValueError("the orders and their weights make no filter")
    return Filter(orders, weights)


def _covers(stated: Sequence[int], least: Sequence[int], slack: float = PRICE) -> bool:
    """Whether each amount is at least the other, but for what rounding leaves open."""
    if len(stated) != len(least):
        return False
    return all(a >= b * (1 - slack) - 2 for a, b in zip(stated, least, strict=True))


def _epsilon(stated: float | None, cost: Sequence[int], delta: float, known: Filter) -> Iterator[str]:
    if len(cost) != len(known.orders):
        yield "a cost is not of the budget's orders"
        return
    saturated: Curve = tuple(min(amount, accounting.SATURATION) for amount in cost)
    found = accounting.epsilon_alone(saturated, delta, known) if any(cost) else 0.0
    if (stated is None) != math.isinf(found) or (stated is not None and abs(stated - found) > SAME):
        yield "an epsilon is not what its cost makes of the budget's orders, weights and delta"


def _odds(said: StatedOdds, found: odds.TradeOff, whose: str) -> Iterator[str]:
    points = {point.innocent: point.found for point in said.curve}
    named = {0.01: said.found_at_one_percent, 0.05: said.found_at_five_percent}
    if any(points.get(innocent) != share for innocent, share in named.items()):
        yield f"the odds of {whose} do not lie on their own curve"
    low = any(share < found.found(innocent) - ODDS for innocent, share in points.items())
    if low or said.best_accuracy < found.best_accuracy() - ODDS:
        yield f"the odds of {whose} are better than its numbers allow"
