"""How each canary would pull at a step, by plain autograd one unit at a time and by clipping written out anew: the code
that is audited has no part in it.

What one canary adds to a step's sum is its gradient, clipped: a vector along a direction that public values tell.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.audit.iterates import StepSeen
from dpcore.audit.units import MadeUpUnits
from dpcore.terms.estimators import Histogram
from dpcore.terms.program import Phase


def pulls(step: StepSeen, units: MadeUpUnits, records: Any) -> Tensor | None:
    """What each unit adds, in clip norms: float32 [units, P]. records: of all units, encoded. None for a step that has
    no gradients, as a count of words."""
    if isinstance(step.phase.estimator, Histogram):
        return None
    made = [_clipped(_gradient(step, units.of(unit), records), step.phase) for unit in range(len(units))]
    return torch.stack(made)


def flat(parts: Mapping[str, Tensor]) -> Tensor:
    """Side by side: float64 [P]."""
    return torch.cat([part.detach().double().flatten() for part in parts.values()])


def _gradient(step: StepSeen, places: np.ndarray, records: Any) -> dict[str, Tensor]:
    """Of a unit's loss, the sum of its records', by parameter."""
    length = int(np.asarray(records.lengths)[places].max())
    parameters: list[nn.Parameter] = list(step.trains.values())
    with torch.enable_grad():
        loss = step.task.losses(step.model, records, places, length).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(step.trains.items(), found, strict=True)
    }


def _clipped(gradient: Mapping[str, Tensor], phase: Phase) -> Tensor:
    """In clip norms: float32 [P], of a norm of at most one."""
    scaled = {name: part.double() / phase.clip_norm for name, part in gradient.items()}
    if phase.clipping == "per-layer":
        modules = {name.rpartition(".")[0] for name in scaled}
        most = 1 / math.sqrt(len(modules))
        for module in modules:
            own = [name for name in scaled if name.rpartition(".")[0] == module]
            norm = torch.cat([scaled[name].flatten() for name in own]).norm().item()
            for name in own:
                scaled[name] = scaled[name] * min(1.0, most / norm) if norm else scaled[name]
        return flat(scaled).float()
    whole = flat(scaled)
    norm = whole.norm().item()
    if not math.isfinite(norm):
        return torch.zeros_like(whole).float()
    # The units' own scale stands in both: C / (|g| + 0.01), or min(1, C / |g|).
    by = 1 / (norm + 0.01 / phase.clip_norm) if phase.clipping == "automatic" else 1 / max(1.0, norm)
    pull: Tensor = (whole * by).float()
    return pull
