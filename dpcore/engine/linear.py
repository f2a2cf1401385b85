"""Linear layers, as torch writes them and as GPT-2 does."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.engine.precision import as_product_input, summed
from dpcore.engine.tape import Tape


class _Linear(torch.autograd.Function):
    """y = x W^T + b, or x W + b where `transposed`; gradients by example go to the tape, none for W and b to autograd.

    x: [m, ..., d], or the same with all but the last dimension flattened.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, tape: Tape) -> Tensor:
        # A bias alone needs no input: that is what makes it cheap to train.
        ctx.save_for_backward(x if tape.owns(weight) else None)
        # Parameters are known by identity, which hooks on saved tensors would not keep.
        ctx.weight, ctx.bias, ctx.transposed, ctx.tape = weight, bias, transposed, tape
        # Cast here and not by autocast: it would keep a copy that has lost its parameter, for others to use.
        w, b = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        return torch.addmm(b, x, w) if transposed else F.linear(x, w, b)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        weight, bias = ctx.weight, ctx.bias
        tape: Tape = ctx.tape
        rows = grad.reshape(tape.examples, -1, grad.shape[-1])  # [m, T, p]
        if x is not None:
            inputs = x.reshape(tape.examples, -1, x.shape[-1])  # [m, T, d]
            tape.write_products(weight, *((inputs, rows) if ctx.transposed else (rows, inputs)))
        if bias is not None and tape.owns(bias):
            tape.write(bias, summed(rows))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        back = weight.to(grad.dtype)
        return grad @ (back.T if ctx.transposed else back), None, None, None, None


def _linear(tape: Tape, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if tape.owns(weight) or tape.owns(bias):
        tape.require_batch(input, weight if tape.owns(weight) else bias)  # type: ignore[arg-type]
        return _Linear.apply(as_product_input(input), weight, bias, False, tape)  # type: ignore[no-any-return, no-untyped-call]
    return None


def _addmm(tape: Tape, input: Tensor, mat1: Tensor, mat2: Tensor, **scales: Any) -> Tensor | None:
    """transformers' Conv1D: the examples' tokens one after the other, [m * T, d]."""
    if (tape.owns(mat2) or tape.owns(input)) and not scales:
        if mat1.shape[0] % tape.examples:
            tape.require_batch(mat1, mat2 if tape.owns(mat2) else input)
        return _Linear.apply(as_product_input(mat1), mat2, input, True, tape)  # type: ignore[no-any-return, no-untyped-call]
    return None


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {F.linear: _linear, torch.addmm: _addmm}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""
