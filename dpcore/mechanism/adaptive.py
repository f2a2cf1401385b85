"""Adaptive clipping: the clip norm follows a quantile of the units' norms (Andrew et al. 2021, Algorithm 1).

Every step sums, beside the clipped gradients, how many units of the draw lie below the clip norm C, each counted from
1/2: +1/2 below, -1/2 above. Noised and divided by the expected batch, it moves C for the next step:
C <- C * exp(-RATE * (share below - QUANTILE)).

One draw, one price. Both sums come from the same draw, so they are one mechanism. Let s be the gradients' sensitivity
and c the count's, and give them noise of sigma_g * s and sigma_c * c. Dividing each part by its own noise leaves unit
Gaussian noise on both, and a unit moves the pair by at most

    sqrt((s / (sigma_g s))^2 + (c / (sigma_c c))^2) = sqrt(1 / sigma_g^2 + 1 / sigma_c^2),

so with 1/sigma_g^2 + 1/sigma_c^2 = 1/sigma^2 the pair is one Gaussian mechanism of noise multiplier sigma, which is
what the plan says and the ledger prices. The clip norm follows from noised counts alone; it is as public as an iterate.

The count has soft edges: near C it passes from +1/2 to -1/2 on a ramp. With a hard edge, rounding could carry other
units over it when one leaves, and c would be no bound.
"""

import math

import torch

from dpcore.mechanism import bounded_sum
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK, BoundedSum

QUANTILE = 0.5
"""Share of units whose norm should lie below the clip norm."""

RATE = 0.2
"""How far one step moves the clip norm: at most by exp(RATE / 2)."""

COUNT_SHARE = 0.01
"""Of 1/sigma^2: the gradients' noise grows by half a percent, and the count's deviation is five units at sigma 1."""

EDGE = 0.125
"""Width of the ramp, of the clip norm."""

LEAST, MOST = 1e-6, 1e6
"""The clip norm stays between these."""


def split(noise_multiplier: float) -> tuple[float, float]:
    """Noise multipliers of the gradients and of the count that together cost what `noise_multiplier` costs."""
    return noise_multiplier / math.sqrt(1 - COUNT_SHARE), noise_multiplier / math.sqrt(COUNT_SHARE)


def count(*, expected_batch: int, device: torch.device, rounding: float = ROUNDING_SLACK) -> BoundedSum:
    """The count over no units: float64 [1]. One unit moves it by 1/2, and others by rounding along the ramp."""
    steepest = (1 + EDGE) / EDGE  # of the score, in relative changes of a norm on the ramp
    return bounded_sum.zero(1, bound=0.5 + expected_batch * rounding * steepest, device=device)


def scores(norms: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """What each unit adds to the count: float64 [m], 1/2 below the clip norm, -1/2 above, 0 for a unit left out."""
    each = ((1 - norms.double() / clip_norm) / EDGE).clamp(-0.5, 0.5)
    return torch.where(norms.isfinite(), each, torch.zeros_like(each))


def next_clip_norm(clip_norm: float, noised_mean_score: float) -> float:
    """The clip norm of the next step."""
    below = min(1.0, max(0.0, noised_mean_score + 0.5))
    return min(MOST, max(LEAST, clip_norm * math.exp(-RATE * (below - QUANTILE))))
