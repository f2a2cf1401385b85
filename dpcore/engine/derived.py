"""Tensors made from parameters alone: a gate behind its sigmoid, a slice of a table, a matrix put together from others.

They are the same for every example, so the model is given a leaf in the place of each and uses it like a parameter.
The examples' gradients of the leaves meet here, and one vector-Jacobian product for all takes them to the parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Derived:
    """What one forward pass makes of parameters before any example comes in."""

    def __init__(self) -> None:
        # By the leaf's identity: the leaf, what it stands for, and the names of the parameters that it is made from.
        self._known: dict[int, tuple[Tensor, Tensor, str]] = {}
        self._gradients: dict[int, Tensor] = {}

    def owns(self, tensor: object) -> bool:
        """Whether this very tensor is one of the leaves."""
        return id(tensor) in self._known

    def name(self, leaf: Tensor) -> str:
        """The parameters that it is made from."""
        return self._known[id(leaf)][2]

    def compute(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
        """The function's output, with a leaf for every tensor in it that depends on a parameter."""
        args = [self._original(value) for value in args]
        kwargs = {key: self._original(value) for key, value in kwargs.items()}
        # Nothing is recomputed for these under gradient checkpointing: they are small, and their graph is needed last.
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            output = function(*args, **kwargs)
        if isinstance(output, tuple | list):
            return type(output)([self._leaf(part, name) for part in output])
        return self._leaf(output, name)

    def write(self, leaf: Tensor, gradients: Tensor) -> None:
        """Take the gradients [m, *leaf.shape] of one use."""
        before = self._gradients.get(id(leaf))
        self._gradients[id(leaf)] = gradients if before is None else before + gradients

    def pull(self, parameters: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter that anything used was made from, with the examples' gradients [m, *shape] of it."""
        if not self._gradients:
            return
        made = [self._known[key][1] for key in self._gradients]
        given = [gradients.to(part.dtype) for gradients, part in zip(self._gradients.values(), made, strict=True)]
        pulled = torch.autograd.grad(made, parameters, given, allow_unused=True, is_grads_batched=True)
        yield from ((p, part) for p, part in zip(parameters, pulled, strict=True) if part is not None)

    def mishandled(self) -> Iterator[str]:
        """The names behind leaves that autograd computed a gradient of itself."""
        return (name for leaf, _, name in self._known.values() if leaf.grad is not None)

    def _leaf(self, output: Any, name: str) -> Any:
        """A leaf in the output's place; the output itself where it is a parameter, or depends on none."""
        if not isinstance(output, Tensor) or not output.requires_grad or isinstance(output, nn.Parameter):
            return output
        leaf = output.detach().requires_grad_(True)
        self._known[id(leaf)] = leaf, output, name
        return leaf

    def _original(self, value: Any) -> Any:
        """An argument with each leaf, also inside a list, replaced by what it stands for."""
        if isinstance(value, tuple | list):
            return type(value)([self._original(part) for part in value])
        return self._known[id(value)][1] if id(value) in self._known else value
