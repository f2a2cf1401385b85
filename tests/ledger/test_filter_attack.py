"""Attacks on the filter itself: what an analyst gains by choosing the next job after seeing the last one's output."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from dpcore.terms import accounting
from ledger.errors import BudgetExceeded
from ledger.reserve import Priced, settle
from tests.ledger.worlds import World

DELTA = 1e-5
Floats = npt.NDArray[np.float64]


def true_delta(epsilon: float, mu: float, room: dict[int, float], losses: int = 2000, choices: int = 21) -> float:
    """P(E) - e^epsilon Q(E), at its highest, of an adversary in two steps.

    Step one is a Gaussian with privacy loss N(mu^2/2, mu^2). Once its loss l is seen, the adversary takes the order
    whose remaining `room` (nats) is worth most and spends all of it on a mechanism with two outcomes: P gives the bad
    one probability p, Q gives it p e^-m. Its cost at order a is at most log(1 + p e^((a-1)m)) / (a - 1) one way, and
    the other way is checked. Midpoint sum over l; over m a grid around the optimum of a rare bad outcome.
    """
    edges = np.linspace(mu**2 / 2 - 9 * mu, mu**2 / 2 + 9 * mu, losses + 1)
    loss = ((edges[1:] + edges[:-1]) / 2)[:, None]
    density = np.exp(-((loss - mu**2 / 2) ** 2) / (2 * mu**2)) / (mu * np.sqrt(2 * np.pi))
    worth = np.clip(-np.expm1(epsilon - loss), 0, None)  # the second step may also do nothing
    for a, left in room.items():
        if left > 0:
            best = epsilon - loss + np.log(a / (a - 1))
            m = np.maximum(best, left) + np.linspace(0, 2, choices)[None, :]
            worth = np.maximum(worth, _two_outcomes(a, left, epsilon - loss, m).max(axis=1, keepdims=True))
    return float(np.sum(density * worth) * (edges[1] - edges[0]))


def _two_outcomes(a: int, left: float, needed: Floats, m: Floats) -> Floats:
    """E_P[(1 - e^(needed - loss))_+] of the mechanism that spends `left` at order a on a bad outcome of loss m."""
    p = np.exp(np.minimum(np.log(np.expm1((a - 1) * left)) - (a - 1) * m, 0.0))
    q = p * np.exp(-m)
    good = np.log1p(-np.minimum(p, 0.999)) - np.log1p(-q)
    back = np.log(p * np.exp(-a * m) + (1 - q) * np.exp(-(a - 1) * good)) / (a - 1)
    gain = p * np.clip(-np.expm1(needed - m), 0, None) + (1 - p) * np.clip(-np.expm1(needed - good), 0, None)
    return np.where((p < 0.999) & (back <= left), gain, 0.0)


def overspend(epsilon: float, mu: float, held: accounting.Filter, *only: int) -> float:
    """True delta over the stated one, against the ledger's own caps and its own price of the first step; `only`: of an
    adversary who has chosen the order beforehand."""
    caps = accounting.caps(epsilon, DELTA, held)
    first = accounting.curve(1 / mu, 1.0, held.orders)
    assert accounting.fits(caps, held.nothing, first)
    room = {
        a: (cap - spent) / accounting.UNITS_PER_NAT
        for a, cap, spent in zip(held.orders, caps, first, strict=True)
        if a in (only or held.orders)
    }
    return true_delta(epsilon, mu, room) / DELTA


def unweighted(*orders: int) -> accounting.Filter:
    """Each order with all of delta: what others do, and no split of it."""
    return accounting.Filter(orders, (Fraction(1),) * len(orders))


def even(orders: tuple[int, ...]) -> accounting.Filter:
    return accounting.Filter(orders, (Fraction(1, len(orders)),) * len(orders))


LISTS = {"first": accounting.FIRST_ORDERS, "base": accounting.BASE_ORDERS}
ATTACKS = [
    # epsilon, mu of the first step, orders, delta over target without weights (at least)
    (8.0, 0.6, (4, 8, 16), 1.34),
    (8.0, 0.7, (3, 5, 8, 12, 16), 1.56),
    (8.0, 0.5, accounting.FIRST_ORDERS, 1.80),
    (3.0, 0.4, accounting.FIRST_ORDERS, 1.45),
    (8.0, 0.5, accounting.BASE_ORDERS, 1.90),
    (3.0, 0.4, accounting.BASE_ORDERS, 1.50),
]


@pytest.mark.parametrize(("epsilon", "mu", "orders", "gain"), ATTACKS)
def test_some_order_fits_is_not_enough_without_weights(
    epsilon: float, mu: float, orders: tuple[int, ...], gain: float
) -> None:
    """Fixed in advance, an order gives at most what was promised; chosen after the first output, they give more."""
    assert 0.95 < max(overspend(epsilon, mu, unweighted(*orders), a) for a in orders) <= 1.0
    assert overspend(epsilon, mu, unweighted(*orders)) > gain


@pytest.mark.parametrize("orders", LISTS)
@pytest.mark.parametrize(
    ("epsilon", "mu"), [(8.0, 0.3), (8.0, 0.5), (8.0, 0.6), (8.0, 0.7), (8.0, 0.9), (3.0, 0.2), (3.0, 0.35), (3.0, 0.5)]
)
def test_the_ledgers_caps_hold_against_the_choice_of_order(epsilon: float, mu: float, orders: str) -> None:
    known = LISTS[orders]
    room = dict(zip(known, accounting.caps(epsilon, DELTA, unweighted(*known)), strict=True))
    best = max(known, key=lambda a: room[a] / a)
    assert overspend(epsilon, mu, even(known)) <= 1.0
    # Not far below either: the weights cost what they must.
    assert 0.6 < overspend(epsilon, mu, accounting.with_main(best, known)) <= 1.0


def price(world: World, budget: str, job: Priced) -> tuple[int, ...]:
    """What the database will hold for the job, saturated per order."""
    return accounting.cost(world.price(budget, job.noise_multiplier, job.sample_rate), job.steps)


def how_many_fit(world: World, budget: str, job: Priced, beside: tuple[int, ...]) -> int:
    """By exact integers: how often the job fits beside what is held already."""
    cap, cost = world.balance(budget).cap, price(world, budget, job)
    return max((c - b) // k for c, b, k in zip(cap, beside, cost, strict=True))


def submit_until_refused(world: World, budget: str, file: str, job: Priced) -> list[str]:
    admitted = []
    while True:
        try:
            admitted.append(world.submit([(file, budget, [job])])[0])
        except BudgetExceeded:
            return admitted


def cancel(world: World, job: str) -> None:
    with world.api.begin() as c:
        settle(c, job, "cancelled")


JOB = Priced(1.0, 6.6, 10)
LOUD = Priced(0.01, 0.7, 400)  # saturates order 64 and leaves room at order 4
LOUDER = Priced(0.01, 0.7, 20)  # an eighth of saturation at order 64


def test_a_saturated_order_mints_no_budget(world: World) -> None:
    """With an order held at saturation, alternate reservations and cancellations: each gives back what it took."""
    budget = world.budget()
    file = world.file(budget)
    honest = how_many_fit(world, budget, JOB, world.nothing(budget))
    assert honest == 10
    loud, _ = world.submit([(file, budget, [LOUD])])
    assert world.balance(budget).reserved[-1] == accounting.SATURATION
    for _ in range(9):
        cancel(world, world.submit([(file, budget, [LOUDER])])[0])
    assert world.balance(budget).reserved == price(world, budget, LOUD)
    beside = submit_until_refused(world, budget, file, JOB)
    assert len(beside) == how_many_fit(world, budget, JOB, price(world, budget, LOUD)) < honest
    for _ in range(3):  # and the other way round: the saturating job goes and comes between the others
        cancel(world, loud)
        cancel(world, beside.pop())
        loud, _ = world.submit([(file, budget, [LOUD])])
        beside += submit_until_refused(world, budget, file, JOB)
    cancel(world, loud)
    beside += submit_until_refused(world, budget, file, JOB)
    assert len(beside) == honest
    assert world.balance(budget).reserved == tuple(honest * k for k in price(world, budget, JOB))


def test_a_saturating_job_that_never_ran_kills_no_order(world: World) -> None:
    """The other way round: were saturation to stick, an analyst could use up the high orders for nothing."""
    budget = world.budget()
    file = world.file(budget)
    before = world.balance(budget)
    for _ in range(3):
        cancel(world, world.submit([(file, budget, [LOUD])])[0])
    assert world.balance(budget) == before
