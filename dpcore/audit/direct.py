"""A bound on epsilon from one run, which supposes nothing of the mechanism: Steinke, Nasr and Jagielski, Privacy
Auditing with One (1) Training Run (2023), theorem 5.2 and the algorithm of appendix D.

m canaries are each in the file by a coin of their own. Of r of them the attacker says whether they were in, and v times
rightly. Under (epsilon, delta) the number of right guesses is, but for delta, at most a binomial one of r coins that
fall right with probability e^epsilon / (1 + e^epsilon).
"""

import math

import numpy as np

from dpcore.audit.guesses import Scored
from dpcore.audit.tails import at_least, largest

MOST = 100.0
"""Epsilons that are looked at."""


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are at most, if the run was (epsilon, delta)-differentially private."""
    tails = at_least(guesses, 1 / (1 + math.exp(-epsilon)))
    beyond = tails[correct]
    if not correct or not delta:
        return float(beyond)
    # P(correct > X >= correct - i), over i.
    steps = np.arange(1, correct + 1)
    worst = ((tails[correct - steps] - beyond) / steps).max()
    return float(min(1.0, beyond + 2 * canaries * delta * worst))


def bound(canaries: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    """Epsilon is at least this with confidence 1 - significance; 0 says nothing."""
    return largest(lambda e: p_value(canaries, guesses, correct, e, delta) <= significance, 0.0, MOST)


def best(scored: Scored, delta: float, significance: float, *, only_in: bool = False) -> float:
    """The best of the bounds by each number of guesses, which hold all together with confidence 1 - significance."""
    tried = list(scored.tried(only_in=only_in))
    each = significance / max(1, len(tried))
    return max((bound(len(scored), guesses, right, delta, each) for guesses, right in tried), default=0.0)
