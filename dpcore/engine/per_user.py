"""Gradients of users: what all of a user's records ask for together, summed before its norm is taken.

Where all trainable parameters are thin, the records of many users share micro-batches, and their rows are summed by
user. Otherwise users are computed one at a time, by plain autograd: their records' gradients are not needed one by one.

Rounding: in shared micro-batches a record's row moves when other users come or go, by at most a share of its own norm.
A user's gradient is small where its records' gradients cancel, and clipping would blow that error up. So a user whose
norm is below 1 / CANCELLING of the sum of its records' norms is computed again, alone. Rounding moves any other clipped
user by at most CANCELLING times what it moves a clipped record by, and one that it carries over that edge by no more.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.rows import Rows
from dpcore.engine.tape import Gradients

CANCELLING = 16
"""Records whose gradients point in independent directions cancel this far when there are CANCELLING^2 of them."""

USER_BYTES = 8
"""Of a trainable value, for each user whose gradient is summed in shared micro-batches."""


class UserGradient:
    """The gradient of one user's summed losses, filled in piece by piece."""

    def __init__(self, engine: PerExample | OneByOne) -> None:
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


class UserGradients:
    """The gradients of several users' summed losses, filled in from micro-batches that hold records of any of them."""

    def __init__(self, engine: PerExample | OneByOne, users: int) -> None:
        self._rows = torch.zeros(users, engine.width, dtype=torch.float64, device=engine.device)
        self._uncancelled = torch.zeros(users, dtype=torch.float64, device=engine.device)

    def add(self, gradients: Gradients | Rows, users: np.ndarray) -> None:
        """Add the gradients of m records, each to its user's: int64 [m], out of range(users)."""
        where = torch.from_numpy(users).to(self._rows.device)
        rows = gradients.rows if isinstance(gradients, Rows) else gradients.thin
        self._rows.index_add_(0, where, rows.double())
        self._uncancelled.index_add_(0, where, gradients.norms().double())

    def finish(self) -> tuple[Rows, np.ndarray]:
        """The users as a micro-batch of units, and which ones are not in it: int64, to be computed alone."""
        alone = Rows(self._rows).norms() < self._uncancelled / CANCELLING
        return Rows(self._rows[~alone]), alone.nonzero().squeeze(1).numpy(force=True)
