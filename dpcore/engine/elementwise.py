"""Elementwise use of a parameter beside activations: the gain of an RMS norm, a gate, a learnt offset; and its copies,
one for each example, as a class token has them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dpcore.engine.tape import Tape


class _Expanded(torch.autograd.Function):
    """A parameter as if every example had its own: [m, 1, ..., *shape], so that autograd gives each its gradient.

    Where `dimensions` are as many as the parameter's, its first is 1 and becomes m.
    """

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, dimensions: int, tape: Tape) -> Tensor:
        ctx.parameter, ctx.tape = parameter, tape
        own = parameter.shape[1:] if parameter.dim() == dimensions else parameter.shape
        ones = [1] * (dimensions - 1 - len(own))
        return parameter.detach().reshape(*ones, *own).expand(tape.examples, *ones, *own)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        parameter, tape = ctx.parameter, ctx.tape
        tape.write(parameter, grads[0].reshape(tape.examples, *parameter.shape))
        return None, None, None


def expanded(tape: Tape, parameter: Tensor, dimensions: int) -> Tensor | None:
    """[m, 1, ..., *shape] in `dimensions` dimensions, broadcast as the parameter would be; None where it cannot be."""
    if parameter.dim() > dimensions or (parameter.dim() == dimensions and parameter.shape[:1] != (1,)):
        return None
    return _Expanded.apply(parameter, dimensions, tape)  # type: ignore[no-any-return, no-untyped-call]


def _elementwise(function: Callable[..., Tensor], tape: Tape, *args: Any, **kwargs: Any) -> Tensor | None:
    activations = [value for value in args if isinstance(value, Tensor) and not tape.owns(value)]
    if not activations:
        return None
    largest = max(activations, key=Tensor.dim)
    leaves = []
    for value in args:
        if tape.owns(value):
            tape.require_batch(largest, value)
            value = expanded(tape, value, largest.dim())
            if value is None:
                return None
        leaves.append(value)
    return function(*leaves, **kwargs)


def _expand(tape: Tape, parameter: Tensor, *sizes: Any) -> Tensor | None:
    """Copies, of which the first dimension always counts the examples: nothing else is told apart by its shape."""
    shape = sizes[0] if isinstance(sizes[0], tuple | list) else sizes
    if not tape.owns(parameter):
        return None
    tape.require_examples(shape[0], parameter)
    leaf = expanded(tape, parameter, len(shape))
    return None if leaf is None else leaf.expand(shape)


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
        torch.sub,
        Tensor.sub,
        Tensor.__sub__,
        Tensor.__rsub__,
        torch.div,
        Tensor.div,
        Tensor.__truediv__,
        Tensor.__rtruediv__,
        torch.lerp,
        Tensor.lerp,
    )
}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""

COPIES: dict[Callable[..., Any], Callable[..., Tensor | None]] = {Tensor.expand: _expand}
"""The same for functions of parameters alone that bring the examples in."""
