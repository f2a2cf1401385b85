"""Odds: what an attacker finds at most, from a job's privacy loss distribution and from a budget's filter."""

import math
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from dpcore.terms import accounting, odds
from dpcore.terms.accounting import FIRST_ORDERS, Part

JOBS = [(0.064, 40, 1.2307), (0.01, 1000, 1.6595), (1.0, 3, 4.0)]
"""Rate, steps, noise."""


def first_filter(main: int) -> accounting.Filter:
    """Of the first revisions: twelve orders, 0.7 of delta on one of them."""
    return accounting.with_main(main, [order for order in FIRST_ORDERS if order != main])


def by_hand(rate: float, steps: int, noise: float, innocent: float) -> float:
    """The same bound on a much finer grid, straight from the library."""
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4)
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    losses = np.linspace(0, 15, 15001)
    deltas = np.array(accountant.get_delta(list(losses)))
    one = np.exp(losses) * innocent + deltas
    two = 1 - np.maximum(0, 1 - innocent - deltas) * np.exp(-losses)
    return float(min(one.min(), two.min(), 1.0))


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("rate", "steps", "noise"), JOBS)
def test_a_jobs_odds_are_those_of_its_loss_distribution(rate: float, steps: int, noise: float) -> None:
    found = odds.of_job((Part(rate, steps, noise),))
    for innocent in (0.001, 0.01, 0.05, 0.2, 0.5):
        exact = by_hand(rate, steps, noise, innocent)
        assert exact - 1e-9 <= found.found(innocent) <= exact + 2e-4


def test_a_gaussians_odds_are_known_in_closed_form() -> None:
    """On the whole file: found = Phi(Phi^-1(innocent) + sqrt(steps) / noise)."""
    from statistics import NormalDist

    normal, found = NormalDist(), odds.of_job((Part(1.0, 3, 4.0),))
    for innocent in (0.01, 0.05, 0.3, 0.7):
        exact = normal.cdf(normal.inv_cdf(innocent) + math.sqrt(3) / 4)
        assert exact <= found.found(innocent) <= exact + 1e-3
    assert found.best_accuracy() == pytest.approx(normal.cdf(math.sqrt(3) / 8), abs=1e-3)


def test_a_job_and_a_budget_of_the_same_epsilon_are_far_apart() -> None:
    """(3, 1e-5), rate 0.064, 40 steps, noise 1.2307: at 1 of 100 accused wrongly 2.9 of 100 are found by the job alone,
    17.6 by a budget of the first revisions that is used to its end by jobs chosen as one goes, and 20.1 by epsilon and
    delta; at 5 of 100 10.9 by the job."""
    job = odds.of_job((Part(0.064, 40, 1.2307),))
    assert (round(job.found(0.01), 3), round(job.found(0.05), 3)) == (0.029, 0.109)
    assert round(job.best_accuracy(), 3) == 0.574
    budget = odds.of_filter(3.0, 1e-5, first_filter(8))
    assert round(budget.found(0.01), 3) == 0.176
    pair = odds.of_pair(3.0, 1e-5)
    assert (round(pair.found(0.01), 3), round(pair.found(0.05), 3)) == (0.201, 0.953)
    # Today's budgets share delta among more orders.
    now = odds.of_filter(3.0, 1e-5, accounting.reference_filter(3.0, 1e-5, 0.064, 40))
    assert round(now.found(0.01), 3) == 0.188


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_a_filters_profile_is_its_delta_at_its_epsilon_and_never_looser_than_the_pair(epsilon: float) -> None:
    known = accounting.reference_filter(epsilon, 1e-5, 0.01, 500)
    found = odds.of_filter(epsilon, 1e-5, known)
    at = dict(zip(found.losses, found.deltas, strict=True))
    assert at[epsilon] == pytest.approx(1e-5, rel=1e-9)
    pair = odds.of_pair(epsilon, 1e-5)
    assert all(found.found(x) <= pair.found(x) + 1e-6 for x in odds.INNOCENT)
    assert found.best_accuracy() <= pair.best_accuracy() + 1e-6


def test_the_profile_is_the_sum_over_orders_of_the_caps() -> None:
    """As the filter's proof has it, in 50 digits: sum of c(a) exp((a - 1) (cap(a) - e)), never more than stated."""
    from mpmath import exp, log, mp, mpf

    mp.dps = 50
    epsilon, delta, known = 3.0, 1e-5, first_filter(8)
    found = odds.of_filter(epsilon, delta, known)
    caps = accounting.caps(epsilon, delta, known)
    at = dict(zip(found.losses, found.deltas, strict=True))
    for e in (2.0, 2.5, 3.0, 4.0, 6.0):
        whole = mpf(0)
        for order, cap in zip(known.orders, caps, strict=True):
            c = exp(-log(order) + (order - 1) * log(1 - mpf(1) / order))
            whole += c * exp((order - 1) * (mpf(cap) / 10**12 - mpf(e)))
        assert min(1, whole) * (1 - mpf(10) ** -9) <= at[e] <= min(1, whole) * (1 + mpf(10) ** -8)


def test_odds_only_worsen_with_more_of_everything() -> None:
    curves = [odds.of_job((Part(0.05, steps, 2.0),)) for steps in (10, 100, 400)]
    for innocent in (0.001, 0.01, 0.3):
        found = [curve.found(innocent) for curve in curves]
        assert found == sorted(found)
        assert found[0] > innocent  # nobody is better off than by guessing
    points = odds.curve(curves[1])
    assert [share for _, share in points] == sorted(share for _, share in points)
    assert points[-1] == (1.0, 1.0)


def test_a_job_that_did_nothing_is_guessing() -> None:
    nothing = odds.of_job((Part(0.05, 0, 2.0),))
    assert [nothing.found(x) for x in (0.0, 0.01, 0.5, 1.0)] == [0.0, 0.01, 0.5, 1.0]
    assert nothing.best_accuracy() == 0.5


def test_words_never_promise_more_than_the_numbers() -> None:
    said = odds.in_words(0.02931, "what this job released", "user")
    assert "people in the data" in said
    assert "finds at most 3," in said
    assert "finds at most 17.7," in odds.in_words(0.1764, "it", "record")
    assert "excludes nothing" in odds.in_words(0.99965, "it", "record")
    assert Fraction(7, 10) in first_filter(8).weights
