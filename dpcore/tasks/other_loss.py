"""A task whose records teach another loss than their kind's own."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from dpcore.tasks.losses import Loss


class OtherLoss:
    """Everything but the loss is the task's."""

    def __init__(self, task: Any, loss: Loss) -> None:
        """loss: of a record or token by itself."""
        self._task, self._loss = task, loss
        self.max_length: int = task.max_length
        self.synthetic, self.mixed = task.synthetic, task.mixed

    @property
    def shortest(self) -> int:
        """Fewest tokens of a record."""
        return self._task.shortest  # type: ignore[no-any-return]

    def require_fit(self, model: nn.Module) -> None:
        """Raises what the task raises."""
        self._task.require_fit(model)

    def losses(self, model: nn.Module, records: Any, indices: np.ndarray, length: int) -> Tensor:
        """One for each record: float [m]."""
        return self._task.losses(model, records, indices, length, loss=self._loss)  # type: ignore[no-any-return]
