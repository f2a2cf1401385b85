"""Products and sums of a parameter with an activation: the gain of an RMS norm, a gate, a learnt offset."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dpcore.engine.tape import Tape


class _Expanded(torch.autograd.Function):
    """A parameter as if every example had its own: [m, 1, ..., *shape], so that autograd gives each its gradient."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, dimensions: int, tape: Tape) -> Tensor:
        ctx.parameter, ctx.tape = parameter, tape
        ones = [1] * (dimensions - 1 - parameter.dim())
        return parameter.detach().expand(tape.examples, *ones, *parameter.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        parameter, tape = ctx.parameter, ctx.tape
        tape.write(parameter, grads[0].reshape(tape.examples, *parameter.shape))
        return None, None, None


def _elementwise(function: Callable[..., Tensor], tape: Tape, input: Any, other: Any, **more: Any) -> Tensor | None:
    for parameter, activation in ((input, other), (other, input)):
        if tape.owns(parameter) and isinstance(activation, Tensor) and activation.dim() > parameter.dim():
            tape.require_batch(activation, parameter)
            expanded: Tensor = _Expanded.apply(parameter, activation.dim(), tape)  # type: ignore[no-untyped-call]
            return function(*((expanded, activation) if parameter is input else (activation, expanded)), **more)
    return None


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    function: partial(_elementwise, function)
    for function in (
        torch.mul,
        Tensor.mul,
        Tensor.__mul__,
        Tensor.__rmul__,
        torch.add,
        Tensor.add,
        Tensor.__add__,
        Tensor.__radd__,
    )
}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""
