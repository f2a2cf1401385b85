"""Embeddings."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcore.engine.tape import Tape


class _Embedding(torch.autograd.Function):
    """Rows of a matrix by token; their gradients go to the tape by example and token.

    ids: [m, ...], or [1, ...] for ids that all examples share, such as positions; the output has all m examples.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int | None, tape: Tape) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding, ctx.tape = weight, padding, tape
        rows = F.embedding(ids, weight)
        return rows.expand(tape.examples, *rows.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, None]:
        (ids,) = ctx.saved_tensors
        tape: Tape = ctx.tape
        tokens = ids.expand(tape.examples, *ids.shape[1:]).reshape(tape.examples, -1)
        rows = grads[0].reshape(*tokens.shape, -1)
        if ctx.padding is not None:
            rows = rows.masked_fill((tokens == ctx.padding).unsqueeze(2), 0.0)
        tape.write_lookups(ctx.weight, tokens, rows)
        return None, None, None, None


def _embedding(
    tape: Tape,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor | None:
    # Both would make an example's gradient depend on the others, and are left to fail as unseen.
    if not tape.owns(weight) or max_norm is not None or scale_grad_by_freq:
        return None
    if input.dim() < 2 or input.shape[0] != 1:
        tape.require_batch(input, weight)
    padding = None if padding_idx is None else padding_idx % weight.shape[0]
    return _Embedding.apply(weight, input, padding, tape)  # type: ignore[no-any-return, no-untyped-call]


HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {F.embedding: _embedding}
"""By torch function: the output when a trainable parameter is used; None to leave the call alone."""
