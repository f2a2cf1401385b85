"""Gradients of users: what all of a user's records ask for together, summed before its norm is taken.

One user at a time, by plain autograd: its records' gradients are not needed one by one, and no other user's numbers
take part in the sum, not even in rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dpcore.engine.per_example import PerExample
from dpcore.engine.rows import Rows


class UserGradient:
    """The gradient of one user's summed losses, filled in piece by piece."""

    def __init__(self, engine: PerExample) -> None:
        self._parameters = list(engine.parameters.values())
        dtype = torch.promote_types(self._parameters[0].dtype, torch.float32)
        self._row = torch.zeros(1, engine.width, dtype=dtype, device=engine.device)

    def of(self, losses: Callable[[], Tensor]) -> Tensor:
        """Gradient [P] of the sum of some of the user's losses."""
        parts = torch.autograd.grad(losses().sum(), self._parameters)
        return torch.cat([part.flatten() for part in parts])

    def add(self, gradient: Tensor) -> None:
        """Add the gradient [P] of some of the user's records."""
        self._row.add_(gradient)

    def gradients(self) -> Rows:
        """The user's gradient as a micro-batch of one unit."""
        return Rows(self._row)
