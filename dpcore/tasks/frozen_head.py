"""What a language model's frozen head reads, without letting it compute the scores of all words at all places."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from dpcore.tasks.cross_entropy import cross_entropy, cross_entropy_behind

_CHANGING: WeakSet[nn.Module] = WeakSet()
"""Models that make something else of their head's output, as Gemma caps it. They need it whole."""


def target_losses(model: nn.Module, run: Callable[..., Any], where: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy at some places, zero at the others: float32 or better [m, T].

    run(): the model's output, its logits [m, T, classes]; where: bool [m, T]; targets: int64 [m, T].
    """
    head = None if model in _CHANGING else _frozen(model)
    if head is not None:
        reading = Reading(head.out_features)
        head.forward = reading  # type: ignore[method-assign]
        try:
            output = run()
        finally:
            del head.forward
        if reading.given(output.logits):
            each = cross_entropy_behind(reading.read[where], head.weight, head.bias, targets[where])
            return torch.zeros(where.shape, dtype=each.dtype, device=each.device).masked_scatter(where, each)
        _CHANGING.add(model)
    return cross_entropy(run().logits.flatten(0, 1), targets.flatten(), where.flatten()).view(where.shape)


def _frozen(model: nn.Module) -> nn.Linear | None:
    """The head, where it is a plain linear layer of which nothing trains."""
    find = getattr(model, "get_output_embeddings", None)
    head: object = None if find is None else find()
    # A subclass may compute something else, and so may one whose forward pass somebody replaced.
    if type(head) is not nn.Linear or "forward" in vars(head):
        return None
    return None if any(p.requires_grad for p in head.parameters()) else head


class Reading:
    """Stands in for a head's forward pass: keeps what it reads, and gives logits without memory or meaning."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.read = self._stand_in = torch.empty(0)

    def __call__(self, input: Tensor) -> Tensor:
        self.read = input
        self._stand_in = input.new_zeros(()).expand(*input.shape[:-1], self._classes)
        return self._stand_in

    def given(self, logits: object) -> bool:
        """Whether a model's logits are what the head gave it, and nothing was written to them."""
        return logits is self._stand_in and self._stand_in._version == 0
