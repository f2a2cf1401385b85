"""How far apart the scores of the two kinds of canaries lie, in deviations: mu, if they are normal (Nasr and others
2023, Tight Auditing of Differentially Private Machine Learning, section 5, in one run).

It looks at the scores themselves and not at guesses, so that it is the sharpest of the bounds; and it supposes what
they do not, that the scores are normal. On sums with Gaussian noise, read along a canary's own direction, they are.
Where both kinds have the same scores, coins are all that tells them apart, and the bound is zero or below whatever
their distribution is.
"""

import math

import numpy as np

from dpcore.audit.guesses import Scored
from dpcore.audit.tails import normal_quantile


def estimate(scored: Scored) -> tuple[float, float]:
    """mu and its standard error in large samples: 1/n + 1/m + mu^2 / 2(n + m), squared. Where scores of one kind do not
    differ among themselves, there is no scale to tell by: (0, infinity)."""
    inside, outside = scored.values[scored.included], scored.values[~scored.included]
    n, m = len(inside), len(outside)
    if min(n, m) < 2:
        return 0.0, math.inf
    pooled = math.sqrt((inside.var(ddof=1) * (n - 1) + outside.var(ddof=1) * (m - 1)) / (n + m - 2))
    if not pooled > 0:
        return 0.0, math.inf
    mu = float((inside.mean() - outside.mean()) / pooled)
    return mu, math.sqrt(1 / n + 1 / m + mu * mu / (2 * (n + m - 2)))


def bound(scored: Scored, significance: float) -> float:
    """mu is at least this with confidence 1 - significance; 0 says nothing."""
    mu, error = estimate(scored)
    return max(0.0, mu + normal_quantile(significance) * error) if np.isfinite(error) else 0.0
