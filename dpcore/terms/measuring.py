"""How good a result is on units that were held out of training: what two noised sums say of it, and how sure that is.

A unit whose score is s, in [0, 1], adds the vector (s - 1/2, 1/2). Its norm is at most sqrt(1/2), whatever the score,
so that adding or removing one unit moves the pair of sums by as much at most. With (x, y) of them, n = 2y is the number
of units and 1/2 + x / n their mean score. Centred scores halve the norm that (s, 1) would have.

The error of x / n follows from the noise by the delta method: with noise of deviation t in each sum it is
t sqrt(1 + 4 (x / n)^2) / n, at most t sqrt(2) / n. How units differ adds to that as in any sample: a score in [0, 1] of
mean p has a variance of at most p (1 - p), which is its variance where scores are 0 or 1 (Bhatia and Davis 2000).
"""

from dataclasses import dataclass
from math import exp, inf, sqrt

CLIP_NORM = sqrt(0.5)
"""Norm of a unit's vector, at most."""
LARGEST_ERROR = 0.1
"""Expected from noise alone, of an accuracy or of a mean loss in nats: a measurement that would say less is refused."""
_CLEAR = 4.0
"""A number of units below so many deviations of its own noise says nothing of them."""


@dataclass(frozen=True)
class Figure:
    """A measured value. n: units, noised. standard_error: of the value, for all such units as these are drawn from;
    noise_error: the noise's part of it, which is all there is for these very units."""

    value: float
    n: int
    standard_error: float
    noise_error: float


def trained_on(declared_size: int, held_out: float) -> int:
    """Units that are trained on, by their declared size."""
    return max(1, round((1 - held_out) * declared_size))


def measured_on(declared_size: int, held_out: float) -> int:
    """Units that are held out, by their declared size."""
    return round(held_out * declared_size)


def mean_score(x: float, y: float, deviation: float) -> Figure | None:
    """What the noised sums say of the mean score; None where they do not even say that there are units. deviation: of
    the noise in each of the sums."""
    n = 2 * y
    if n < max(1.0, _CLEAR * 2 * deviation):
        return None
    value = min(1.0, max(0.0, 0.5 + x / n))
    noise = deviation * sqrt(1 + 4 * (value - 0.5) ** 2) / n
    # Two right and two wrong answers more, or a sample without a wrong one would look sure (Agresti and Coull 1998).
    near = (value * n + 2) / (n + 4)
    return Figure(value, round(n), sqrt(noise**2 + near * (1 - near) / n), noise)


def perplexity(score: Figure, most_loss: float) -> Figure:
    """The exponential of the mean of losses that were cut at `most_loss`, of which scores are parts: at most what the
    perplexity is, by records. The errors are those at the value."""
    value = exp(most_loss * score.value)
    scale = value * most_loss
    return Figure(value, score.n, scale * score.standard_error, scale * score.noise_error)


def expected_noise(noise_multiplier: float, units: int) -> float:
    """The noise's part of the error of a mean score over so many units, at most."""
    return noise_multiplier * CLIP_NORM * sqrt(2) / units if units else inf


def expected_error(noise_multiplier: float, units: int) -> float:
    """The standard error of a mean score over so many units, at most: where half of the scores are 1."""
    return sqrt(expected_noise(noise_multiplier, units) ** 2 + 0.25 / units) if units else inf
