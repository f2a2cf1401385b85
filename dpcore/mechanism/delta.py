"""A whole vector of weights' changes, clipped as one.

Guarantee: whatever the vector is a function of, replacing it by any other moves the result by at most
`ClippedSum.sensitivity` in L2, twice the clip norm and what rounding to the grid adds: both lie in the ball of that
radius. So one unit, added or removed, moves it by as much at most, a record or a user alike, and no draw inside makes
that less. (Clipping the mean of a batch is the same: its sensitivity is 2C, not C over the batch.)

Edge cases: a vector with a NaN or an infinity becomes zero, which lies in the ball.
"""

import torch

from dpcore.mechanism import bounded_sum
from dpcore.mechanism.clipping import ClippedSum

_UP = 1 + 1e-12
"""The norm of float64 numbers is off by less: far below it for 2^26 of them, summed in pairs."""


def clipped(moved: torch.Tensor, clip_norm: float) -> ClippedSum:
    """`moved`, float64 [P], scaled by min(1, C / |moved|), with its sensitivity."""
    norm = torch.linalg.vector_norm(moved) * _UP
    within = moved * (clip_norm / norm).clamp(max=1.0) if norm.isfinite() else torch.zeros_like(moved)
    empty = bounded_sum.zero(len(moved), bound=2 * clip_norm, device=moved.device)
    return ClippedSum(within, empty.sensitivity, empty.grid, clip_norm, "flat", (), None)
