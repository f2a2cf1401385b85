"""Clipping of per-unit gradients, and their sum with its sensitivity.

Guarantee: adding or removing one unit moves the sum by at most `ClippedSum.sensitivity` in L2, however it is clipped:

flat: a gradient g is scaled by min(1, C / |g|).
automatic: by C / (|g| + 0.01) (Bu et al. 2023): every unit weighs about the same. C scales all gradients alike, and the
    noise with them: it changes nothing under Adam, and the length of the steps under SGD.
per-layer: the part of g in each of the K modules that own trainable parameters is clipped flatly to C / sqrt(K), so
    that all parts together have a norm of at most C (McMahan et al. 2018, section 3.1).
adaptive: flat, with a C that follows the median norm: `adaptive.py`.

Edge cases: a unit whose gradient has a NaN, an infinity or a norm that overflows, in any module, contributes exactly
zero, and changes nothing else; a zero gradient contributes zero; an empty draw gives the zero sum with the same
sensitivity.

Floating point: when one unit leaves, the others of its micro-batch are computed in another grouping, and their clipped
gradients move by rounding: with LoRA at most 4.2e-7 C each was seen in float32 (24 layers of 1,024 on a CPU), with all
weights of six layers 1.4e-6 C. The sensitivity is therefore C * (1 + slack * expected batch), where the slack is twice
what the rehearsal sees on public records and at least 1e-6, a public number; and what rounding to the grid adds
(`bounded_sum.py`).
Users that share micro-batches move by up to 16 times as much (`engine/per_user.py`), and their sum's sensitivity has
that in; other users that are computed one at a time do not move at all. A norm that comes from Gram matrices
is rounded up, because a clipped gradient would outgrow C if its norm came out too small.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch

from dpcore.mechanism import adaptive, bounded_sum
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK, BoundedSum
from dpcore.terms.program import Clipping

AUTOMATIC_OFFSET = 0.01
"""Added to the norm by automatic clipping (Bu et al. 2023), so that small gradients are not blown up without bound."""

Groups = tuple[tuple[slice, ...], ...]
"""For each module that owns trainable parameters, their places in the flat vector."""


class UnitGradients(Protocol):
    """Gradients of the m units of a micro-batch, however they are stored."""

    def norms(self) -> torch.Tensor:
        """L2 norm of each unit's gradient over all trainable parameters: [m], not finite where the gradient is not."""

    def add_weighted(self, value: torch.Tensor, factors: torch.Tensor) -> None:
        """Add the sum of `factors` [m] times the gradients to `value`, float64 [P], in place.

        A factor of zero contributes exactly nothing, even where the gradient is not finite: 0 x NaN is NaN, and one
        bad unit would spoil the sum of all.
        """

    def norms_at(self, place: slice) -> torch.Tensor:
        """The same norms of one parameter's gradient alone: [m]. `place`: where it stands in the flat vector."""

    def add_weighted_at(self, place: slice, value: torch.Tensor, factors: torch.Tensor) -> None:
        """The same sum for one parameter alone, added to its place in `value`, float64 [P]."""


_UP = 1 + 1e-12
"""The norm of float64 numbers is off by less."""


@dataclass(frozen=True)
class OneVector:
    """What one unit adds, as `UnitGradients` of it alone: float64 [P]."""

    value: torch.Tensor

    def norms(self) -> torch.Tensor:
        """[1]."""
        return self.norms_at(slice(None))

    def add_weighted(self, value: torch.Tensor, factors: torch.Tensor) -> None:
        """By one factor [1]; zero adds nothing."""
        self.add_weighted_at(slice(None), value, factors)

    def norms_at(self, place: slice) -> torch.Tensor:
        """Of a part: [1]."""
        norm: torch.Tensor = torch.linalg.vector_norm(self.value[place]) * _UP
        return norm.unsqueeze(0)

    def add_weighted_at(self, place: slice, value: torch.Tensor, factors: torch.Tensor) -> None:
        """Of a part."""
        if factors[0] > 0:  # 0 x NaN is NaN
            value[place].add_(self.value[place] * factors[0])


@dataclass(frozen=True)
class ClippedSum(BoundedSum):
    """Sum of clipped gradients over the units of a draw: `value` float64 [P], changed in place by `add`.

    groups: for clipping per layer, otherwise empty. below: for adaptive clipping, the count beside the sum.
    """

    clip_norm: float
    clipping: Clipping
    groups: Groups
    below: BoundedSum | None

    @classmethod
    def zero(
        cls,
        size: int,
        *,
        clip_norm: float,
        clipping: Clipping,
        expected_batch: int,
        device: torch.device,
        groups: Groups = (),
        rounding: float = ROUNDING_SLACK,
        memory: torch.Tensor | None = None,
    ) -> "ClippedSum":
        """The sum over no units. Raises ValueError for clipping per layer without groups that cover the vector.

        rounding: what the others may move by when one unit leaves, of the clip norm, for each unit expected.
        memory: float64 [size] to be overwritten, where there is some.
        """
        per_layer = clipping == "per-layer"
        if per_layer and sum(place.stop - place.start for places in groups for place in places) != size:
            raise ValueError("clipping per layer needs groups that hold every trainable parameter once")
        bound = clip_norm * (1 + rounding * expected_batch)
        empty = bounded_sum.zero(size, bound=bound, device=device, memory=memory)
        adapts = clipping == "adaptive"
        below = adaptive.count(expected_batch=expected_batch, device=device, rounding=rounding) if adapts else None
        return cls(empty.value, empty.sensitivity, empty.grid, clip_norm, clipping, groups if per_layer else (), below)

    def add(self, gradients: UnitGradients) -> None:
        """Add the clipped gradients of a micro-batch; a unit whose norm is not finite adds nothing."""
        # What is added is what the norm was taken of, to the last digit, wherever the caller stands.
        with torch.autocast(self.value.device.type, enabled=False):
            self._add(gradients)

    def _add(self, gradients: UnitGradients) -> None:
        if self.groups:
            self._add_by_group(gradients)
            return
        norms = gradients.norms()
        gradients.add_weighted(self.value, factors(norms, self.clip_norm, self.clipping))
        if self.below is not None:
            self.below.value.add_(adaptive.scores(norms, self.clip_norm).sum())

    def _add_by_group(self, gradients: UnitGradients) -> None:
        each = [torch.stack([gradients.norms_at(place) for place in places]).norm(dim=0) for places in self.groups]
        norms = torch.stack(each)  # [K, m]
        scale = factors(norms, self.clip_norm / math.sqrt(len(self.groups)), "flat")
        # A unit is left out whole: what remains of a broken gradient means nothing.
        scale = torch.where(norms.isfinite().all(0), scale, torch.zeros_like(scale))
        for places, kept in zip(self.groups, scale, strict=True):
            for place in places:
                gradients.add_weighted_at(place, self.value, kept)


def factors(norms: torch.Tensor, clip_norm: float, clipping: Clipping) -> torch.Tensor:
    """What gradients of these norms are multiplied by: factor x norm <= clip_norm, zero where a norm is not finite.

    automatic: C / (norm + 0.01). The others: min(1, C / norm).
    """
    automatic = clipping == "automatic"
    scale = clip_norm / (norms + AUTOMATIC_OFFSET) if automatic else (clip_norm / norms).clamp(max=1.0)
    return torch.where(norms.isfinite(), scale, torch.zeros_like(scale))


def by_module(parameters: Mapping[str, torch.Tensor]) -> Groups:
    """The places of parameters, given in the order of the flat vector, by the module that owns them."""
    starts = accumulate((p.numel() for p in parameters.values()), initial=0)
    groups: dict[str, list[slice]] = {}
    for (name, p), start in zip(parameters.items(), starts, strict=False):
        groups.setdefault(name.rpartition(".")[0], []).append(slice(start, start + p.numel()))
    return tuple(tuple(places) for places in groups.values())
