"""Layer norms."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.engine.precision import as_norm_input, summed
from dpcore.engine.tape import Tape


class _LayerNorm(torch.autograd.Function):
    """torch's own layer norm; the gradients of gain and bias go to the tape by example."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float, tape: Tape
    ) -> Tensor:
        output: Tensor
        output, mean, deviation = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, deviation)
        ctx.weight, ctx.bias, ctx.shape, ctx.tape = weight, bias, shape, tape
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None, None]:
        (grad,) = grads
        x, mean, inverse_deviation = ctx.saved_tensors
        weight, bias = ctx.weight, ctx.bias
        tape: Tape = ctx.tape
        if tape.owns(weight):
            tape.write(weight, _by_example((x - mean).mul_(inverse_deviation).mul_(grad), weight))
        if tape.owns(bias):
            tape.write(bias, _by_example(grad, bias))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None
        grad_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, ctx.shape, mean, inverse_deviation, weight, bias, [True, False, False]
        )
        return grad_x, None, None, None, None, None


def _by_example(terms: Tensor, parameter: Tensor) -> Tensor:
    """The sum over each example's tokens: [m, *parameter.shape]."""
    return summed(terms.reshape(len(terms), -1, *parameter.shape))


def _layer_norm(
    tape: Tape,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if tape.owns(weight) or tape.owns(bias):
        tape.require_batch(input, weight if tape.owns(weight) else bias)  # type: ignore[arg-type]
        return _LayerNorm.apply(as_norm_input(input), normalized_shape, weight, bias, eps, tape)  # type: ignore[no-any-return, no-untyped-call]
    return None


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {F.layer_norm: _layer_norm}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""
