"""Exact tails of the binomial distribution, Clopper and Pearson's interval, and the normal distribution."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

_STEPS = 200
"""Of a bisection: each halves what is left, so that float64 has no more to give."""


def at_least(trials: int, probability: float) -> np.ndarray:
    """P(X >= v) for v from 0 to trials + 1, of a binomial X: float64 [trials + 2]."""
    successes = np.arange(trials + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    if probability <= 0 or probability >= 1:
        mass = (successes == (0 if probability <= 0 else trials)).astype(float)
    else:
        ways = factorials[-1] - factorials - factorials[::-1]
        mass = np.exp(ways + successes * math.log(probability) + (trials - successes) * math.log1p(-probability))
    # Small terms first, so that none is lost beside a large one.
    tails: np.ndarray = np.minimum(1.0, np.append(np.cumsum(mass[::-1])[::-1], 0.0))
    return tails


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
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
