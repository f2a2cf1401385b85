"""A loss of each record or token by itself, as a task takes one."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dpcore.tasks.cross_entropy import cross_entropy

Loss = Callable[[nn.Module, Callable[..., Any], Tensor, Tensor], Tensor]
"""loss(model, run, where, targets): float32 or better [...], zero where nothing counts. run(**more): the model's output
on a batch, its logits [..., classes], called with `more` besides; where: bool [...]; targets: int64 [...]."""


def label_losses(model: nn.Module, run: Callable[..., Any], where: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of one label for each record: all [m], and all count."""
    return cross_entropy(run().logits, targets)
