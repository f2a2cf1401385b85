"""Cross entropy whose gradient keeps its digits when a target is all but certain."""

from typing import Any

import torch
from torch import Tensor


class _CrossEntropy(torch.autograd.Function):
    """The target's gradient, p - 1, as minus the sum of the other probabilities: nothing cancels.

    In float32, p - 1 of a record that is learnt loses its digits, and clipping that scales small gradients up would
    scale that error up with them, past what a sum's sensitivity has room for.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits, dim=1)
        ctx.save_for_backward(log_p, targets.unsqueeze(1))
        return -log_p.gather(1, targets.unsqueeze(1)).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        log_p, targets = ctx.saved_tensors
        p = log_p.exp().scatter_(1, targets, 0.0)
        p.scatter_(1, targets, -p.sum(1, keepdim=True))
        return p.mul_(grads[0].unsqueeze(1)), None


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Of each row: float32 or better [n], from logits [n, classes] and targets int64 [n]."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses: Tensor = _CrossEntropy.apply(precise, targets)  # type: ignore[no-untyped-call]
    return losses
