"""How far each unit moves the sum that a step noises, held against plain autograd of that unit's losses alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.estimators.first_order import FirstOrder

LossOf = Callable[[Any, int], Tensor | None]
"""Of the model as it is and one record, computed alone and without padding; None where it has nothing to learn."""


def cross_entropy_of(records: Any) -> LossOf:
    """What a method learns that takes a task as it is."""

    def loss(model: Any, i: int) -> Tensor | None:
        ids = torch.from_numpy(records.tokens[records.offsets[i] : records.offsets[i + 1]]).long().unsqueeze(0)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        if records.labels is not None:
            return F.cross_entropy(logits, torch.tensor([records.labels[i]]))
        return F.cross_entropy(logits[0, :-1], ids[0, 1:]) if ids.shape[1] > 1 else None

    return loss


def watch(
    monkeypatch: pytest.MonkeyPatch, clip_norm: float, loss_of: LossOf, *, seen: Callable[[Any], None] = lambda m: None
) -> list[float]:
    """From now on no unit that is drawn moves a step's sum by anything but its own clipped gradient. Returned: by how
    much each did, of `clip_norm`, as steps run. seen(model): called at each step."""
    original, moved = FirstOrder.sum, list[float]()

    def plain(self: FirstOrder, unit: int) -> Tensor:
        parameters = list(self.parameters.values())
        total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
        for i in [unit] if self._owners is None else self._owners.records(unit):
            if (loss := loss_of(self._model, int(i))) is not None:
                total += torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        return total

    def watched(self: FirstOrder, drawn: np.ndarray, *more: Any) -> Any:
        seen(self._model)
        whole = original(self, drawn, *more).value.clone()
        for unit in drawn:
            move = whole - original(self, drawn[drawn != unit], *more).value
            own = plain(self, unit)
            assert (move - own * (clip_norm / own.norm()).clamp(max=1)).norm() <= 1e-8 * clip_norm
            assert move.norm() <= clip_norm * (1 + 1e-9)
            moved.append(float(move.norm()) / clip_norm)
        return original(self, drawn, *more)

    monkeypatch.setattr(FirstOrder, "sum", watched)
    return moved
