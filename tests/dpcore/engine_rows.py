"""The engine's gradients as rows, to hold against plain autograd's."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dpcore.engine.per_example import PerExample
from dpcore.mechanism.clipping import UnitGradients


def flat_rows(engine: PerExample, by_name: Mapping[str, Tensor]) -> Tensor:
    """Gradients [n, *shape] by parameter as rows [n, P] in the engine's order."""
    return torch.cat([by_name[name].reshape(len(by_name[name]), -1) for name in engine.parameters], dim=1)


def rows_of(gradients: UnitGradients, engine: PerExample, m: int) -> Tensor:
    """The engine's gradients one by one: [m, P]."""
    rows = torch.zeros(m, engine.width, dtype=torch.float64)
    for i in range(m):
        gradients.add_weighted(rows[i], torch.eye(m, dtype=gradients.norms().dtype)[i])
    return rows
