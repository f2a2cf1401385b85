"""Clipping of per-unit gradients, and their sum with its sensitivity.

Guarantee: adding or removing one unit moves the sum by at most `ClippedSum.sensitivity` in L2.

Edge cases: a unit whose gradient has a NaN, an infinity or a norm that overflows contributes exactly zero, and changes
nothing else; a zero gradient contributes zero; an empty draw gives the zero sum with the same sensitivity.

Floating point: when one unit leaves, the others of its micro-batch are computed in another grouping, and their clipped
gradients move by rounding: at most 4.2e-7 C each was seen in float32 (a six-layer encoder on a CPU). The sensitivity is
therefore C * (1 + 1e-6 * expected batch): a public number, more than twice what was measured.
Users are computed one at a time, so that no other user's gradient moves at all. A norm that comes from Gram matrices
is rounded up, because a clipped gradient would outgrow C if its norm came out too small.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

AUTOMATIC_OFFSET = 0.01
"""Added to the norm by automatic clipping (Bu et al. 2023), so that small gradients are not blown up without bound."""

ROUNDING_SLACK = 1e-6
"""Of the clip norm, for each unit expected in a draw."""


class Gradients(Protocol):
    """Gradients of the m units of a micro-batch, however they are stored."""

    def norms(self) -> torch.Tensor:
        """L2 norm of each unit's gradient over all trainable parameters: [m], not finite where the gradient is not."""

    def add_weighted(self, value: torch.Tensor, factors: torch.Tensor) -> None:
        """Add the sum of `factors` [m] times the gradients to `value`, float64 [P], in place.

        A factor of zero contributes exactly nothing, even where the gradient is not finite: 0 x NaN is NaN, and one
        bad unit would spoil the sum of all.
        """


@dataclass(frozen=True)
class ClippedSum:
    """Sum over the units of a draw: `value` float64 [P], changed in place by `add`. Private until noise is added."""

    value: torch.Tensor
    sensitivity: float
    clip_norm: float
    clipping: Literal["automatic", "flat"]

    @classmethod
    def zero(
        cls,
        size: int,
        *,
        clip_norm: float,
        clipping: Literal["automatic", "flat"],
        expected_batch: int,
        device: torch.device,
    ) -> "ClippedSum":
        """The sum over no units."""
        value = torch.zeros(size, dtype=torch.float64, device=device)
        return cls(value, clip_norm * (1 + ROUNDING_SLACK * expected_batch), clip_norm, clipping)

    def add(self, gradients: Gradients) -> None:
        """Add the clipped gradients of a micro-batch; a unit whose norm is not finite adds nothing."""
        gradients.add_weighted(self.value, factors(gradients.norms(), self.clip_norm, self.clipping))


def factors(norms: torch.Tensor, clip_norm: float, clipping: Literal["automatic", "flat"]) -> torch.Tensor:
    """What each unit's gradient is multiplied by: [m], factor x norm <= clip_norm, zero where the norm is not finite.

    flat: min(1, C / norm). automatic: C / (norm + 0.01).
    """
    scale = (clip_norm / norms).clamp(max=1.0) if clipping == "flat" else clip_norm / (norms + AUTOMATIC_OFFSET)
    return torch.where(norms.isfinite(), scale, torch.zeros_like(scale))
