"""Gaussian differential privacy (Dong, Roth and Su 2022): telling two worlds apart is as hard as telling N(0, 1) from
N(mu, 1). A Gaussian on the whole file with noise multiplier sigma has mu = 1 / sigma, and mu^2 adds up over steps.

The bound is of Mahloujifar, Melis and Chaudhuri, Auditing f-Differential Privacy in One Run (2024), algorithm 3: it
rejects every mu under which so many right guesses are too unlikely. It holds for mechanisms that are Gaussian, and says
much more of them than `direct` can.
"""

import math

from dpcore.audit.guesses import Scored
from dpcore.audit.tails import largest, normal_cdf, normal_quantile

MOST = 60.0
"""Values of mu that are looked at; its epsilon is beyond anything that is claimed."""


def delta_of(mu: float, epsilon: float) -> float:
    """Balle and Wang 2018, theorem 5."""
    if mu <= 0:
        return 0.0
    # e^epsilon alone would overflow; the product is below one.
    tail = normal_cdf(-mu / 2 - epsilon / mu)
    second = math.exp(epsilon + math.log(tail)) if tail > 0 else 0.0
    return max(0.0, normal_cdf(mu / 2 - epsilon / mu) - second)


def epsilon_of(mu: float, delta: float) -> float:
    """The epsilon at delta of a Gaussian with this mu."""
    return largest(lambda epsilon: delta_of(mu, epsilon) > delta, 0.0, mu * mu / 2 + mu * 40) if mu > 0 else 0.0


def refuted(mu: float, canaries: int, guesses: int, correct: int, significance: float) -> bool:
    """Whether so many right guesses of so many are too unlikely under mu, with the given significance.

    The recursion goes down from the number of right guesses: `right` and `wrong` bound, for each i, what i right
    guesses or more contribute to the expected share of right and of wrong guesses, if their probability is no less than
    the significance. If at the end they come to more than there are guesses, that supposition was wrong.
    """
    right, wrong = significance * correct / canaries, significance * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        least = max(wrong, normal_cdf(normal_quantile(right) - mu)) if right < 1 else 1.0
        if least == wrong:
            break  # nothing changes from here on
        right = min(1.0, right + i / (guesses - i) * (least - wrong))
        wrong = least
    return right + wrong > guesses / canaries


def bound(canaries: int, guesses: int, correct: int, significance: float) -> float:
    """mu is at least this with confidence 1 - significance; 0 says nothing."""
    return largest(lambda mu: refuted(mu, canaries, guesses, correct, significance), 0.0, MOST)


def best(scored: Scored, significance: float) -> float:
    """mu by the best of the bounds by each number of guesses, which hold all together."""
    tried = list(scored.tried())
    each = significance / max(1, len(tried))
    return max((bound(len(scored), guesses, right, each) for guesses, right in tried), default=0.0)
