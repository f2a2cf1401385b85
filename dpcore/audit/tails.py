"""Exact tails of the binomial distribution, Clopper and Pearson's interval, and the normal distribution."""

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np

_NEAR = 1e-12
"""How near a bisection comes, of the larger end or of one."""


def at_least(trials: int, probability: float) -> np.ndarray:
    """P(X >= v) for v from 0 to trials + 1, of a binomial X: float64 [trials + 2]."""
    successes = np.arange(trials + 1)
    if probability <= 0 or probability >= 1:
        mass = (successes == (0 if probability <= 0 else trials)).astype(float)
    else:
        mass = np.exp(
            _ways(trials) + successes * math.log(probability) + (trials - successes) * math.log1p(-probability)
        )
    # Small terms first, so that none is lost beside a large one.
    tails: np.ndarray = np.minimum(1.0, np.append(np.cumsum(mass[::-1])[::-1], 0.0))
    return tails


@lru_cache(maxsize=64)
def _ways(trials: int) -> np.ndarray:
    """Logarithms of the binomial coefficients: float64 [trials + 1]."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    found: np.ndarray = factorials[-1] - factorials - factorials[::-1]
    return found


def upper(successes: int, trials: int, significance: float) -> float:
    """A probability that is larger with confidence 1 - significance (Clopper and Pearson 1934)."""
    if successes >= trials:
        return 1.0
    return largest(lambda p: 1 - at_least(trials, p)[successes + 1] >= significance, successes / max(1, trials), 1.0)


def lower(successes: int, trials: int, significance: float) -> float:
    """A probability that is smaller with confidence 1 - significance."""
    return 1 - upper(trials - successes, trials, significance)


def normal_cdf(x: float) -> float:
    """Of the standard normal distribution, with all digits in its lower tail."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def normal_quantile(probability: float) -> float:
    """Where the standard normal distribution function has this value; infinite at 0 and 1."""
    if probability <= 0 or probability >= 1:
        return math.copysign(math.inf, probability - 0.5)
    return NormalDist().inv_cdf(probability)


def largest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number in [low, high] at which something holds that holds below it: `low` where it never does."""
    if not holds(low):
        return low
    if holds(high):
        return high
    while high - low > _NEAR * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
