"""The flat buffer in which one backward pass leaves a gradient for every example."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class UnseenParameter(RuntimeError):
    """A trainable parameter is used in a way that gives no per-example gradient; training on would not be private."""


class BatchShape(RuntimeError):
    """A layer's input does not have the examples in its first dimension."""


class Buffer:
    """Per-example gradients of all trainable parameters side by side: float32 (float64 for a float64 model) [m, P].

    A parameter that is used several times in a forward pass is written once and added to after that, so its slice
    holds the exact sum. Parameters are known by identity, hence tied weights have one slice.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        if not parameters:
            raise ValueError("the model has no trainable parameter")
        self.parameters = dict(parameters)
        self.shapes = [p.shape for p in self.parameters.values()]
        self.sizes = [p.numel() for p in self.parameters.values()]
        self.width = sum(self.sizes)
        first = next(iter(self.parameters.values()))
        self.device = first.device
        self._slot = {id(p): i for i, p in enumerate(self.parameters.values())}
        self._dtype = torch.promote_types(first.dtype, torch.float32)
        self._slices: list[Tensor] = []
        self._written: list[bool] = []
        self._examples = 0
        self._store = torch.empty(0)

    def owns(self, tensor: object) -> bool:
        """Whether this very tensor is one of the trainable parameters."""
        return id(tensor) in self._slot

    def begin(self, examples: int) -> None:
        """Make room for one micro-batch of `examples`."""
        if examples > self._store.shape[0]:
            self.release()
            self._store = torch.empty(examples, self.width, dtype=self._dtype, device=self.device)
        rows = self._store[:examples]
        parts = torch.split(rows, self.sizes, dim=1)
        self._slices = [part.view(examples, *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        self._written = [False] * len(self.sizes)
        self._examples = examples

    def release(self) -> None:
        """Give the memory back until the next `begin`."""
        self._slices = []
        self._store = torch.empty(0)

    def require_batch(self, tensor: Tensor, parameter: Tensor) -> None:
        """Raises BatchShape unless dimension 0 of a layer's input runs over the examples."""
        if tensor.dim() < 2 or tensor.shape[0] != self._examples:
            name = list(self.parameters)[self._slot[id(parameter)]]
            raise BatchShape(
                f"{name}: the layer's input has shape {tuple(tensor.shape)}, but its first dimension "
                f"must run over the {self._examples} examples of the micro-batch"
            )

    def write(self, parameter: Tensor, gradient: Tensor) -> None:
        """Take per-example gradients [m, *parameter.shape] of one use of a parameter."""
        slot = self._slot[id(parameter)]
        if self._written[slot]:
            self._slices[slot].add_(gradient)
        else:
            self._slices[slot].copy_(gradient)
            self._written[slot] = True

    def finish(self) -> Tensor:
        """The gradients [m, P] of the micro-batch, valid until the next `begin`.

        Raises UnseenParameter when autograd computed a gradient itself, or nothing was written: some use of the
        parameter was not seen, and its per-example gradient is incomplete.
        """
        leaked = [name for name, p in self.parameters.items() if p.grad is not None]
        missing = [name for name, seen in zip(self.parameters, self._written, strict=True) if not seen]
        for p in self.parameters.values():
            p.grad = None
        if leaked or missing:
            names = ", ".join(dict.fromkeys(leaked + missing))
            raise UnseenParameter(f"no per-example gradient for trainable parameters: {names}")
        return self._store[: self._examples]

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """A vector [P] as one tensor for each parameter, by name."""
        parts = torch.split(flat, self.sizes)
        return {n: part.view(shape) for n, part, shape in zip(self.parameters, parts, self.shapes, strict=True)}
