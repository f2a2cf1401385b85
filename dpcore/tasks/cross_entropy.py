"""Cross entropy whose gradient keeps its digits when a target is all but certain; also behind a linear layer, whose
scores for a large vocabulary are then never there all at once."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.terms.memory import SCORES_AT_ONCE


class _CrossEntropy(torch.autograd.Function):
    """Probabilities take the place of their logarithms, and gradients theirs: large vocabularies are dear to touch.

    autograd refuses a second backward pass, since the first has changed what was saved.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, counted: Tensor | None) -> Tensor:
        log_p = torch.log_softmax(logits, dim=1)
        losses = _losses(log_p, targets.unsqueeze(1))
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_gradient(log_p.exp_(), targets.unsqueeze(1)), counted)
        # Left out rather than weighted with zero, which a NaN would survive.
        return losses if counted is None else losses.masked_fill_(~counted, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        gradient, counted = ctx.saved_tensors
        gradient.mul_(grads[0].unsqueeze(1))
        if counted is not None and not bool(counted.all()):
            gradient[~counted] = 0.0
        return gradient, None, None


class _BehindLinear(torch.autograd.Function):
    """The gradient of the rows is computed at once, in the forward pass, while a piece's scores are there: so they are
    neither kept nor computed a second time, and the rows' gradient is all that the backward pass needs."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        losses, gradients = [], torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        step = max(1, SCORES_AT_ONCE // len(weight))
        for start in range(0, len(rows), step):
            piece, wanted = rows[start : start + step], targets[start : start + step].unsqueeze(1)
            log_p = torch.log_softmax(_precise(F.linear(piece, weight, bias)), dim=1)
            losses.append(_losses(log_p, wanted))
            if gradients is not None:
                gradients[start : start + step] = _gradient(log_p.exp_(), wanted).to(weight.dtype) @ weight
        ctx.save_for_backward(gradients)
        return torch.cat(losses) if losses else _precise(rows.new_zeros(0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * grads[0].unsqueeze(1).to(gradients.dtype), None, None, None


def cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor | None = None) -> Tensor:
    """Of each row: float32 or better [n], from logits [n, classes] and targets int64 [n].

    counted: bool [n]; the other rows have loss and gradient zero, whatever stands in them.
    """
    losses: Tensor = _CrossEntropy.apply(_precise(logits), targets, counted)  # type: ignore[no-untyped-call]
    return losses


def cross_entropy_behind(rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """The same of the scores `rows weight^T + bias`: [n], from rows [n, d], a weight [classes, d] and a bias [classes]
    that do not train, and targets int64 [n]. Kept for the backward pass are n x d numbers."""
    losses: Tensor = _BehindLinear.apply(rows, weight, bias, targets)  # type: ignore[no-untyped-call]
    return losses


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _losses(log_p: Tensor, targets: Tensor) -> Tensor:
    """[n] of log probabilities [n, classes] at targets [n, 1]."""
    return -log_p.gather(1, targets).squeeze(1)


def _gradient(p: Tensor, targets: Tensor) -> Tensor:
    """Of each row's loss by its scores, in the memory of the probabilities p [n, classes].

    The target's own, p - 1, is minus the sum of the other probabilities: nothing cancels. In float32, p - 1 of a record
    that is learnt loses its digits, and clipping that scales small gradients up would scale that error up with them,
    past what a sum's sensitivity has room for.
    """
    p.scatter_(1, targets, 0.0)
    return p.scatter_(1, targets, -p.sum(1, keepdim=True))
