"""Bounds from below: against closed forms, against other libraries, and below the truth as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from dpcore.audit import direct, fitted, gaussian, tails, two_worlds
from dpcore.audit.guesses import Scored, together


@pytest.mark.parametrize("trials", [1, 7, 400])
@pytest.mark.parametrize("probability", [0.0, 1e-9, 0.3, 0.5, 0.97, 1.0])
def test_tails_are_those_of_the_binomial(trials, probability):
    expected = stats.binom.sf(np.arange(-1, trials + 1), trials, probability)
    np.testing.assert_allclose(tails.at_least(trials, probability), expected, rtol=1e-9, atol=1e-300)


def test_intervals_are_clopper_and_pearsons():
    for k, n in ((0, 10), (3, 100), (50, 100), (100, 100)):
        high = 1.0 if k == n else stats.beta.ppf(0.95, k + 1, n - k)
        low = 0.0 if k == 0 else stats.beta.ppf(0.05, k, n - k + 1)
        assert tails.upper(k, n, 0.05) == pytest.approx(high, abs=1e-9)
        assert tails.lower(k, n, 0.05) == pytest.approx(low, abs=1e-9)


def test_a_p_value_without_delta_is_the_binomial_tail_and_grows_with_delta():
    """Of 100 guesses 75 right: (log 3, 0) is what they are the expectation of."""
    assert direct.p_value(200, 100, 75, math.log(3), 0) == pytest.approx(stats.binom.sf(74, 100, 0.75))
    assert direct.p_value(200, 100, 75, 0.5, 1e-5) > direct.p_value(200, 100, 75, 0.5, 0)
    # By the sum that the paper's appendix writes out, one term after the other.
    q, alpha, total = 1 / (1 + math.exp(-0.5)), 0.0, 0.0
    for i in range(1, 76):
        total += stats.binom.pmf(75 - i, 100, q)
        alpha = max(alpha, total / i)
    expected = stats.binom.sf(74, 100, q) + alpha * 1e-5 * 2 * 200
    assert direct.p_value(200, 100, 75, 0.5, 1e-5) == pytest.approx(expected, rel=1e-9)


def test_all_guesses_right_has_a_closed_form():
    """r right guesses of r: (e^eps / (1 + e^eps))^r is the significance."""
    q = 0.05 ** (1 / 300)
    assert direct.bound(300, 300, 300, 0.0, 0.05) == pytest.approx(math.log(q / (1 - q)), abs=1e-6)
    assert direct.bound(300, 300, 150, 0.0, 0.05) == 0


def test_both_bounds_by_guesses_are_those_of_another_library():
    """jax_privacy's tests: 10,000 normal scores of each kind, one deviation apart, delta 1e-6, significance 0.05 shared
    out over 386 thresholds, of which the best for each bound makes these guesses."""
    assert direct.bound(20_000, 3376, 2807, 1e-6, 0.05 / 386) == pytest.approx(1.13346, rel=1e-5)
    mu = gaussian.bound(20_000, 406, 379, 0.05 / 386)
    assert gaussian.epsilon_of(mu, 1e-6) == pytest.approx(2.164749, rel=1e-5)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomized_response_is_bounded_below_its_epsilon_and_not_far_from_it(epsilon):
    """Each coin is told rightly with probability e^eps / (1 + e^eps): nothing that is eps-private tells more."""
    draws, bounds = np.random.default_rng(0), []
    for _ in range(40):
        included = draws.random(2000) < 0.5
        told = included ^ (draws.random(2000) > 1 / (1 + math.exp(-epsilon)))
        bounds.append(direct.best(Scored(told + draws.random(2000) / 2, included), 0.0, 0.05))
    assert np.mean(np.array(bounds) > epsilon) <= 0.1  # at most 0.05 is promised
    assert np.median(bounds) > 0.75 * epsilon


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
def test_a_gaussian_is_bounded_below_its_mu_and_the_bounds_are_not_empty(mu):
    draws, found = np.random.default_rng(1), []
    for _ in range(30):
        included = draws.random(600) < 0.5
        scored = Scored(draws.normal(size=600) + mu * included, included)
        found.append((gaussian.best(scored, 0.05), fitted.bound(scored, 0.05)))
    by_guesses, by_fit = np.array(found).T
    assert np.mean(by_guesses > mu) <= 0.1
    assert np.mean(by_fit > mu) <= 0.14
    assert np.median(by_fit) > 0.6 * mu
    assert np.median(by_guesses) > 0.3 * mu


def test_guesses_say_less_than_the_mechanism_allows_and_a_gaussian_family_more():
    """What is known of one run: about 1.1 directly and 1.5 by a Gaussian trade-off, where 3.9 is true."""
    included = np.arange(1000) % 2 == 0
    ranks = (np.argsort(np.argsort(np.arange(1000) // 2 * 7919 % 500)) % 500 + 0.5) / 500
    normal = np.array([tails.normal_quantile(p) for p in ranks])
    scored = Scored(normal + 0.9 * included, included)
    by_guesses = direct.best(scored, 1e-5, 0.05)
    family = gaussian.epsilon_of(gaussian.best(scored, 0.05), 1e-5)
    assert 0.3 < by_guesses < family < gaussian.epsilon_of(0.9, 1e-5)


def test_the_gaussians_epsilon_is_balle_and_wangs():
    """sigma 1 / mu for (1, 1e-6), as dp-accounting's own tests have it; and a value by the closed form."""
    assert gaussian.epsilon_of(1 / 4.2247927, 1e-6) == pytest.approx(1.0, abs=2e-3)
    for mu, epsilon in ((0.1, 0.3), (1.0, 2.0), (30.0, 500.0)):
        own = stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu))
        assert gaussian.delta_of(mu, epsilon) == pytest.approx(own, rel=1e-6, abs=1e-15)
    assert gaussian.epsilon_of(0.0, 1e-5) == 0


def test_coins_alone_tell_nothing():
    """Scores that know nothing of the coins: the bounds are zero but for the significance."""
    draws, beyond = np.random.default_rng(2), 0
    for _ in range(40):
        scored = Scored(draws.standard_cauchy(300), draws.random(300) < 0.5)
        beyond += max(direct.best(scored, 1e-5, 0.05), gaussian.best(scored, 0.05), fitted.bound(scored, 0.05)) > 0
    assert beyond <= 8
    assert fitted.bound(Scored(np.zeros(40), np.arange(40) % 2 == 0), 0.05) == 0


def test_guesses_are_of_the_highest_and_the_lowest_scores():
    scored = Scored(np.array([3.0, -1.0, 2.0, -2.0]), np.array([True, False, False, False]))
    assert [scored.correct(2), scored.correct(4)] == [2, 3]
    assert scored.correct(2, only_in=True) == 1
    assert len(together([scored, scored])) == 8


def test_two_worlds_of_one_gaussian_step_are_bounded_below_its_epsilon():
    draws, delta, bounds = np.random.default_rng(3), 0.01, []
    truth = gaussian.epsilon_of(1.0, delta)
    for _ in range(20):
        first, second = draws.normal(size=(1000, 1)), draws.normal(size=(1000, 1)) + 1.0
        bounds.append(two_worlds.bound(first, second, delta, 0.05))
    assert np.mean(np.array(bounds) > truth) <= 0.1
    assert np.median(bounds) > 0.3 * truth
