"""Convolutions over two dimensions: the patches of a vision transformer, and the layers of a convolutional network, of
which each group of channels may have a kernel of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from dpcore.engine.precision import as_product_input, summed
from dpcore.engine.tape import Tape

Pair = tuple[int, int]


class _Conv2d(torch.autograd.Function):
    """torch's own convolution of x [m, C, H, W]; seen as a linear layer of each patch, [m, L, C * kh * kw], its
    gradients by example go to the tape."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        tape: Tape,
    ) -> Tensor:
        ctx.save_for_backward(x if tape.owns(weight) else None)
        ctx.shape, ctx.weight, ctx.bias, ctx.tape = x.shape, weight, bias, tape
        ctx.how = {"stride": stride, "padding": padding, "dilation": dilation}
        ctx.groups = groups
        b = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, weight.to(x.dtype), b, groups=groups, **ctx.how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None, None, None, None]:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        weight, bias, how = ctx.weight, ctx.bias, ctx.how
        tape: Tape = ctx.tape
        rows = grad.flatten(2).transpose(1, 2)  # [m, L, O]
        if x is not None:
            patches = F.unfold(x, weight.shape[2:], **how)  # [m, C * kh * kw, L]
            if ctx.groups == 1:
                tape.write_products(weight, rows, patches.transpose(1, 2))
            else:
                tape.write(weight, _by_group(grad.flatten(2), patches, weight.shape, ctx.groups))
        if bias is not None and tape.owns(bias):
            tape.write(bias, summed(rows))
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = conv2d_input(ctx.shape, weight.to(grad.dtype), grad, groups=ctx.groups, **how)  # type: ignore[no-untyped-call]
        return grad_x, None, None, None, None, None, None, None


def _by_group(rows: Tensor, patches: Tensor, shape: Sequence[int], groups: int) -> Tensor:
    """Gradients [m, *shape] of a kernel that sees its own group of channels alone. rows: [m, O, L]."""
    examples = len(rows)
    left = rows.reshape(examples * groups, -1, rows.shape[2])
    right = patches.reshape(examples * groups, -1, patches.shape[2])
    return torch.bmm(left, right.transpose(1, 2)).reshape(examples, *shape)


def _conv2d(
    tape: Tape,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    if isinstance(padding, str) or not (tape.owns(weight) or tape.owns(bias)):
        return None
    tape.require_batch(input, weight if tape.owns(weight) else bias, least=4)  # type: ignore[arg-type]
    how = (_pair(stride), _pair(padding), _pair(dilation))
    return _Conv2d.apply(as_product_input(input), weight, bias, *how, groups, tape)  # type: ignore[no-any-return, no-untyped-call]


def _pair(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {F.conv2d: _conv2d}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""
