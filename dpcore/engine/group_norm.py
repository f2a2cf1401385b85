"""Group norms, which convolutional networks without a batch norm have."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dpcore.engine.elementwise import expanded
from dpcore.engine.precision import as_norm_input
from dpcore.engine.tape import Tape


def _group_norm(
    tape: Tape,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if not (tape.owns(weight) or tape.owns(bias)):
        return None
    tape.require_batch(input, weight if tape.owns(weight) else bias)  # type: ignore[arg-type]
    x = F.group_norm(as_norm_input(input), num_groups, None, None, eps)
    if weight is not None:
        x = x * _by_channel(tape, weight, x.dim())
    return x if bias is None else x + _by_channel(tape, bias, x.dim())


def _by_channel(tape: Tape, parameter: Tensor, dimensions: int) -> Tensor:
    """A value for each channel [C] beside an input [m, C, ...] of so many dimensions."""
    leaf = expanded(tape, parameter, 2) if tape.owns(parameter) else parameter.unsqueeze(0)
    assert leaf is not None
    return leaf.reshape(*leaf.shape, *[1] * (dimensions - 2))


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {F.group_norm: _group_norm}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""
