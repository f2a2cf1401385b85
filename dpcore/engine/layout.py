"""Where each trainable parameter stands in the flat vector of all of them."""

from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor, nn

THIN_SIDE = 64
THIN_SIZE = 2**20
"""A parameter is thin when its per-example gradients are kept as they are: no matrix, or one with a side of at most
THIN_SIDE and at most THIN_SIZE numbers. Storing them costs no more than the inputs and output gradients of a layer."""


class Layout:
    """Trainable parameters by name, thin ones first, so that their gradients by example form one matrix.

    Parameters are known by identity, hence tied weights have one place. `width`: P, the length of the flat vector;
    `thin`: how many of its first numbers belong to thin parameters.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        if not parameters:
            raise ValueError("the model has no trainable parameter")
        wide = {name: p for name, p in parameters.items() if _is_wide(p)}
        self.parameters = {name: p for name, p in parameters.items() if name not in wide} | wide
        self.sizes = [p.numel() for p in self.parameters.values()]
        self.width = sum(self.sizes)
        self.thin = self.width - sum(p.numel() for p in wide.values())
        first = next(iter(self.parameters.values()))
        self.device = first.device
        self.dtype = torch.promote_types(first.dtype, torch.float32)
        starts = accumulate(self.sizes, initial=0)
        self._place = {
            id(p): (name, slice(start, start + p.numel()))
            for (name, p), start in zip(self.parameters.items(), starts, strict=False)
        }

    def owns(self, tensor: object) -> bool:
        """Whether this very tensor is one of the trainable parameters."""
        return id(tensor) in self._place

    def name(self, parameter: Tensor) -> str:
        """The parameter's name in the model."""
        return self._place[id(parameter)][0]

    def place(self, parameter: Tensor) -> slice:
        """Where the parameter stands in the flat vector; for a thin one, in each row of the buffer too."""
        return self._place[id(parameter)][1]

    def is_thin(self, parameter: Tensor) -> bool:
        """Whether the parameter's per-example gradients are kept as they are."""
        return bool(self.place(parameter).stop <= self.thin)

    @staticmethod
    def matrix(parameter: Tensor) -> tuple[int, int]:
        """Rows and columns of the parameter as a matrix: a convolution's rows are its output channels."""
        return parameter.shape[0], parameter.shape[1:].numel()

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """A vector [P] as one tensor for each parameter, by name."""
        parts = torch.split(flat, self.sizes)
        return {name: part.view(p.shape) for (name, p), part in zip(self.parameters.items(), parts, strict=True)}


def _is_wide(parameter: Tensor) -> bool:
    if parameter.dim() < 2:
        return False
    return min(Layout.matrix(parameter)) > THIN_SIDE or parameter.numel() > THIN_SIZE
