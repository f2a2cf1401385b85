"""Thin matrices: per-example gradients of linear layers by one batched product."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.engine.buffer import Buffer

FUNCTION = F.linear
"""The torch function whose uses of trainable parameters this file handles."""


class _Linear(torch.autograd.Function):
    """y = x W^T + b, whose backward leaves gradients by example in the buffer and gives autograd none for W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, buffer: Buffer) -> Tensor:
        ctx.save_for_backward(x if buffer.owns(weight) else None, weight, bias)
        ctx.buffer = buffer
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (grad,) = grads
        x, weight, bias = ctx.saved_tensors
        buffer: Buffer = ctx.buffer
        rows = grad.flatten(1, -2) if grad.dim() > 2 else grad.unsqueeze(1)  # [m, T, p]
        if x is not None:
            inputs = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)  # [m, T, d]
            buffer.write(weight, torch.bmm(rows.transpose(1, 2), inputs))
        if bias is not None and buffer.owns(bias):
            buffer.write(bias, rows.sum(1))
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        return grad_x, None, None, None


def handle(buffer: Buffer, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """The layer's output [m, ..., p] when its weight or bias is trained; None to leave the call alone."""
    if buffer.owns(weight) or buffer.owns(bias):
        buffer.require_batch(input, weight if buffer.owns(weight) else bias)  # type: ignore[arg-type]
        return _Linear.apply(input, weight, bias, buffer)  # type: ignore[no-any-return, no-untyped-call]
    return None
