"""Golden values of the accountant and of the filter's arithmetic."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import compute_rdp

from dpcore.spec import accounting as acc


@pytest.mark.parametrize(
    ("sigma", "q"), [(0.7, 0.01), (1.0, 0.01), (1.1, 256 / 60000), (1.5, 0.04), (0.8, 0.001), (4.0, 0.02), (10.0, 1.0)]
)
def test_curve_agrees_with_opacus_from_above(sigma: float, q: float) -> None:
    theirs = compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=list(acc.ORDERS))
    for ours, nats in zip(acc.curve(sigma, q), theirs, strict=True):
        assert nats * acc.UNITS_PER_NAT * (1 - 1e-9) - 1 <= ours <= nats * acc.UNITS_PER_NAT * (1 + 1e-6) + 2


def test_curve_of_the_plain_gaussian_is_its_closed_form() -> None:
    assert acc.curve(2.0, 1.0) == tuple(math.ceil(a / 8 * 1e12 * (1 + 1e-9)) for a in acc.ORDERS)


def test_golden_subsampled_value() -> None:
    """A published value: sampling rate 0.1, noise 2, ten steps at order 5."""
    assert acc.curve(2.0, 0.1)[acc.ORDERS.index(5)] * 10 / 1e12 == pytest.approx(0.07737, abs=5e-6)


@pytest.mark.parametrize(
    ("sigma", "q", "steps", "epsilon", "delta", "best", "jobs"),
    [
        (1.6595, 0.01, 1000, 8, 1e-5, 4, 54),
        (2.9005, 0.01, 1000, 8, 1e-5, 4, 189),
        (1.0939, 0.01, 1000, 8, 1e-5, 4, 17),
        (1.6595, 0.01, 1000, 3, 1e-5, 8, 9),
        (1.7957, 0.01, 1000, 8, 1e-5, 4, 65),
        (0.9919, 0.001, 10000, 8, 1e-5, 4, 135),
    ],
)
def test_how_many_jobs_fit(
    sigma: float, q: float, steps: int, epsilon: float, delta: float, best: int, jobs: int
) -> None:
    cap = acc.caps(epsilon, delta, acc.order_weights(best))
    job = acc.cost(acc.curve(sigma, q), steps)
    assert max(c // k for c, k in zip(cap, job, strict=True)) == jobs


def test_the_best_order_is_the_reference_jobs_not_the_plain_gaussians() -> None:
    weights = acc.reference_weights(1, 1e-6, 0.01, 500)
    assert weights == acc.order_weights(16)
    assert sum(weights) == 1
    assert acc.calibrate(1, 1e-6, weights, 0.01, 500) == pytest.approx(1.398, abs=5e-4)
    assert acc.reference_weights(8, 1e-5, 0.01, 1000, 1.6595) == acc.order_weights(4)


@pytest.mark.parametrize(("delta", "least"), [(1e-5, 0.107), (1e-6, 0.144), (1e-9, 0.253)])
def test_a_budget_too_small_for_anything_is_refused_with_the_least_that_works(delta: float, least: float) -> None:
    with pytest.raises(acc.DoesNotFit) as refused:
        acc.reference_weights(0.05, delta, 0.01, 500)
    assert refused.value.smallest_epsilon == pytest.approx(least)
    acc.reference_weights(least, delta, 0.01, 500)


@given(
    epsilon=st.floats(0.5, 20),
    delta=st.sampled_from([1e-4, 1e-5, 1e-6, 1e-8]),
    q=st.sampled_from([1.0, 0.3, 0.05, 0.01, 0.001]),
    steps=st.integers(1, 5000),
)
def test_calibration_keeps_its_promise(epsilon: float, delta: float, q: float, steps: int) -> None:
    """What is calibrated to epsilon costs at most epsilon alone, fits the empty budget, and slightly less noise does not."""
    weights = acc.reference_weights(epsilon, delta, q, steps)
    sigma = acc.calibrate(epsilon, delta, weights, q, steps)
    cap = acc.caps(epsilon, delta, weights)
    assert acc.fits(cap, acc.EMPTY, acc.cost(acc.curve(sigma, q), steps))
    assert acc.epsilon_alone(acc.cost(acc.curve(sigma, q), steps), delta, weights) <= epsilon + 1e-9
    if sigma > acc.MIN_NOISE_MULTIPLIER:
        assert not acc.fits(cap, acc.EMPTY, acc.cost(acc.curve(sigma - 1e-6, q), steps))


@given(sigma=st.floats(0.4, 20), q=st.floats(1e-5, 0.99), steps=st.integers(1, 1000))
def test_less_noise_more_sampling_or_more_steps_never_cost_less(sigma: float, q: float, steps: int) -> None:
    base = acc.cost(acc.curve(sigma, q), steps)
    for more in (
        acc.cost(acc.curve(sigma * 0.9, q), steps),
        acc.cost(acc.curve(sigma, min(1.0, q * 1.1)), steps),
        acc.cost(acc.curve(sigma, q), steps + 1),
    ):
        assert all(m >= b for m, b in zip(more, base, strict=True))


def test_a_saturated_order_never_certifies() -> None:
    cap = acc.caps(100, 1e-3, acc.order_weights(2))
    assert not acc.fits(cap, acc.EMPTY, (acc.SATURATION,) * len(acc.ORDERS))
    assert acc.epsilon_alone((acc.SATURATION,) * len(acc.ORDERS), 1e-5, acc.order_weights(2)) == math.inf


def test_the_largest_request_that_fits_does_fit_and_a_larger_one_does_not() -> None:
    weights = acc.order_weights(4)
    cap, used = acc.caps(8, 1e-5, weights), acc.cost(acc.curve(1.6595, 0.01), 40_000)
    epsilon = acc.largest_epsilon_that_fits(cap, used, 1e-5, weights, 0.01, 1000)
    sigma = acc.calibrate(epsilon, 1e-5, weights, 0.01, 1000)
    assert acc.fits(cap, used, acc.cost(acc.curve(sigma, 0.01), 1000))
    smaller = acc.calibrate(epsilon * 1.01, 1e-5, weights, 0.01, 1000)
    assert not acc.fits(cap, used, acc.cost(acc.curve(smaller, 0.01), 1000))


def test_weights_are_exact_rationals() -> None:
    assert acc.order_weights(4)[2] == Fraction(7, 10)
    assert set(acc.order_weights(4)) == {Fraction(7, 10), Fraction(3, 110)}
