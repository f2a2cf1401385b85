"""RMS norms that torch computes; a model's own is an elementwise product with its gain."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.engine.elementwise import expanded
from dpcore.engine.precision import as_norm_input
from dpcore.engine.tape import Tape


def _rms_norm(
    tape: Tape, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor | None:
    if weight is None or not tape.owns(weight):
        return None
    tape.require_batch(input, weight)
    leaf = expanded(tape, weight, input.dim())
    if leaf is None:
        return None
    x = as_norm_input(input)
    # As one function, torch rounds to the input's type once, at the end.
    return (F.rms_norm(x.to(torch.promote_types(x.dtype, leaf.dtype)), normalized_shape, None, eps) * leaf).to(x.dtype)


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {F.rms_norm: _rms_norm}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""
