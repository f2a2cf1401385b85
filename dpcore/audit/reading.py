"""Scores from released iterates: what the best linear reader of the steps' noised means would say of each canary.

A step's mean, times its divisor and in clip norms, is y = sum_i x_i p_i + noise, where p_i is how canary i would pull
(`pulls.py`), x_i is 1 where it was in, and the noise has the deviation sigma in every direction. Projected on the
directions u_i = p_i / |p_i| it is u = K (r x) + noise with K the directions' inner products and r the pulls' norms.
With coins for the x_i, the best linear guess of x_i - 1/2 is r_i / 4 times

    (K r^2 / 4 + sigma^2)^-1 (u - K r / 2),

which is the plain projection less what the others that pull the same way explain. Steps are weighted by their noise.

Canaries that pull harder than they may, as in training that does not clip, are noise to each other under that guess. So
the pulls are taken so many times as long as they should be as makes what was seen most likely: of what was released
alone, and of no coin, so that the bounds hold as they are.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcore.audit.iterates import StepSeen
from dpcore.audit.pulls import flat, pulls
from dpcore.audit.units import MadeUpUnits
from dpcore.terms.estimators import ZerothOrder
from dpcore.terms.program import Program

_TIMES = tuple(2.0**k for k in range(16))
_LEAST = 1e-6
"""Of the largest eigenvalue: smaller ones are rounding."""


class Reader:
    """Adds up what the steps of one run say. `scores`: float64 [units]."""

    def __init__(self, units: MadeUpUnits, records: Any, program: Program) -> None:
        """records: of all units, encoded, those that are not in the file too."""
        self._units, self._records = units, records
        self._precision = sum(phase.steps / phase.mechanism.noise_multiplier**2 for phase in program.phases)
        self.scores = np.zeros(len(units))

    def see(self, step: StepSeen) -> None:
        """One more step."""
        pulled = pulls(step, self._units, self._records)
        if pulled is None:
            return
        phase = step.phase
        norms = pulled.norm(dim=1).double().clamp(min=1e-12)
        directions = pulled / norms.unsqueeze(1).float()
        seen = (directions @ flat(step.mean).float()).double() * (phase.expected_batch / phase.clip_norm)
        if isinstance(phase.estimator, ZerothOrder):
            # What K numbers say of K random directions comes back along them: 1 / sqrt(K) of it.
            seen *= math.sqrt(phase.estimator.directions)
            norms = torch.ones_like(norms)
        inner = (directions @ directions.T).double()
        weight = 1 / phase.mechanism.noise_multiplier**2 / self._precision
        norms = norms * _times(seen, inner, norms, 1 / self._precision)
        left = seen - inner @ norms / 2
        system = inner * norms.square() / 4 + torch.eye(len(norms), dtype=torch.float64) / self._precision
        self.scores += weight * (norms / 4 * torch.linalg.solve(system, left)).numpy()


def _times(seen: Tensor, inner: Tensor, norms: Tensor, noise: float) -> float:
    """How many times as hard as they may the canaries pull, most likely: a power of two, at least one."""
    sizes, basis = torch.linalg.eigh(inner)
    kept = sizes > _LEAST * sizes.max()
    sizes, basis = sizes[kept], basis[:, kept]

    def unlikely(times: float) -> float:
        """Minus twice the logarithm of the likelihood, of normal x_i."""
        away = basis.T @ (seen - times * (inner @ norms) / 2)
        variance = times**2 / 4 * sizes.square() + noise * sizes
        return float((away.square() / variance + variance.log()).sum())

    return min(_TIMES, key=unlikely)
