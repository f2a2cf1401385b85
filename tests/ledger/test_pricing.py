"""The database's prices and caps: never below the truth, never far above it, and the same as the plan's."""

import itertools
import math
from fractions import Fraction

import mpmath
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore.terms import accounting
from tests.ledger.worlds import World

GRID = [
    (sigma, q)
    for q in (1e-6, 1e-4, 0.001, 256 / 60000, 0.01, 0.1, 0.5, 0.99, 1 - 1e-12, 1.0)
    for sigma in (0.3, 0.7, 1.0, 1.6595, 10.0, 100.0)
]


ORDERS = accounting.MAIN_ORDERS
"""Every order that a budget can have."""


def database_curve(world: World, sigma: float, q: float, orders: tuple[int, ...]) -> list[int]:
    with world.api.connect() as c:
        return c.execute(sa.select(sa.func.ledger.poisson_gaussian_curve(sigma, q, list(orders)))).scalar_one()


def exact(sigma: float, q: float, order: int) -> mpmath.mpf:
    """The curve by 60-digit quadrature of its definition: E_{x ~ N(0, s^2)} of the likelihood ratio to the order."""
    with mpmath.workdps(60):
        s, rate = mpmath.mpf(sigma), mpmath.mpf(q)

        def integrand(x: mpmath.mpf) -> mpmath.mpf:
            ratio = 1 - rate + rate * mpmath.exp((2 * x - 1) / (2 * s**2))
            return mpmath.npdf(x, 0, s) * ratio**order

        points = sorted({-12 * s, mpmath.mpf(0), mpmath.mpf(order) / 2, mpmath.mpf(order), order + 12 * s})
        return mpmath.log(mpmath.quad(integrand, points)) / (order - 1)


@pytest.mark.parametrize(
    ("sigma", "q", "order"),
    [
        (1.0, 0.01, 2),
        (0.7, 0.1, 8),
        (1.6595, 0.01, 16),
        (2.0, 0.5, 32),
        (10.0, 1.0, 64),
        (4.0, 0.01, 200),
        (9.0, 0.02, 512),
    ],
)
def test_the_price_is_the_definition_rounded_up(world: World, sigma: float, q: float, order: int) -> None:
    truth = exact(sigma, q, order) * accounting.UNITS_PER_NAT
    (priced,) = database_curve(world, sigma, q, (order,))
    assert truth <= priced <= truth * (1 + mpmath.mpf("1e-10")) + 1


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("sigma", "q"), GRID)
def test_the_price_bounds_the_closed_form_over_the_grid(world: World, sigma: float, q: float) -> None:
    priced = database_curve(world, sigma, q, ORDERS)
    with mpmath.workdps(50):
        s, rate = mpmath.mpf(sigma), mpmath.mpf(q)
        tilt = [rate**k * mpmath.exp(k * (k - 1) / (2 * s**2)) for k in range(max(ORDERS) + 1)]
        miss = [(1 - rate) ** k for k in range(max(ORDERS) + 1)]
        for order, units in zip(ORDERS, priced, strict=True):
            moment = mpmath.fsum(math.comb(order, k) * tilt[k] * miss[order - k] for k in range(order + 1))
            truth = mpmath.log(moment) / (order - 1) * accounting.UNITS_PER_NAT
            if truth >= accounting.SATURATION:
                assert units == accounting.SATURATION
            else:
                assert truth <= units <= truth * (1 + mpmath.mpf("1e-10")) + 1
    planned = accounting.curve(sigma, q, ORDERS)
    assert all(a >= b for a, b in zip(planned, priced, strict=True)), "a plan must never be cheaper than the ledger"
    assert all(a <= b * (1 + 1e-8) + 2 for a, b in zip(planned, priced, strict=True))


CAPS = (("8", "1e-5"), ("1", "1e-6"), ("0.3", "1e-9"), ("100", "0.001"))


def test_caps_are_rounded_down_and_agree_with_the_plan(world: World) -> None:
    filters = [accounting.with_main(4, accounting.FIRST_ORDERS), accounting.with_main(300)]
    for held, (epsilon, delta) in itertools.product(filters, CAPS):
        common = math.lcm(*(w.denominator for w in held.weights))
        numerators = [int(w * common) for w in held.weights]
        given = {"e": epsilon, "d": delta, "o": list(held.orders), "w": numerators, "n": common}
        caps = "ledger.caps(CAST(:e AS numeric), CAST(:d AS numeric), CAST(:o AS int[]), CAST(:w AS int[]), :n)"
        with world.api.connect() as c:
            stored = c.execute(sa.text(f"SELECT {caps}"), given).scalar_one()
        with mpmath.workdps(50):
            for a, w, cap in zip(held.orders, held.weights, stored, strict=True):
                log_c = -mpmath.log(a) + (a - 1) * mpmath.log(1 - mpmath.mpf(1) / a)
                room = mpmath.log(mpmath.mpf(delta) * w.numerator / w.denominator) - log_c
                truth = (mpmath.mpf(epsilon) + room / (a - 1)) * accounting.UNITS_PER_NAT
                assert truth - 3 <= cap <= truth
        planned = accounting.caps(float(epsilon), float(delta), held)
        assert all(p <= s for p, s in zip(planned, stored, strict=True))


def test_the_table_of_log_factorials_is_the_nearest_double(world: World) -> None:
    with world.api.connect() as c:
        table = c.execute(sa.text("SELECT ledger.log_factorials()")).scalar_one()
    assert len(table) == 513
    with mpmath.workdps(50):
        assert table == [float(mpmath.log(mpmath.factorial(n))) for n in range(513)]


@settings(max_examples=25, deadline=None)
@given(
    epsilon=st.decimals("0.3", "20", places=3),
    exponent=st.integers(3, 9),
    batch=st.integers(1, 2048),
    size=st.integers(2048, 200_000),
    steps=st.integers(1, 2000),
)
def test_a_job_at_an_untouched_budgets_own_epsilon_always_fits(
    world: World, epsilon: object, exponent: int, batch: int, size: int, steps: int
) -> None:
    from ledger.budgets import Reference
    from ledger.reserve import Priced

    rate, delta = batch / size, f"1e-{exponent}"
    try:
        budget = world.budget(str(epsilon), delta, Reference(rate, steps))
    except accounting.DoesNotFit:
        return  # the caps of a tiny budget are negative; that such a refusal is right is tested with golden values
    held = world.balance(budget)
    sigma = accounting.calibrate(held.epsilon, held.delta, held.filter, (accounting.Part(rate, steps),))
    world.submit([(world.file(budget), budget, [Priced(rate, sigma, steps)])])
    assert sum(held.filter.weights, Fraction(0)) == 1
