"""The engine for models that use a parameter in a way that the fast one does not know: plain autograd, one record at a
time. Exact whatever the modules do, and slow. It is used like `PerExample`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from dpcore.engine.errors import UnseenParameter
from dpcore.engine.layout import Layout
from dpcore.engine.rows import Rows
from dpcore.engine.tape import Uses


class OneByOne:
    """Gradients of a model's trainable parameters, for micro-batches of one example."""

    uses: Uses = frozenset()

    def __init__(self, model: nn.Module) -> None:
        self._layout = Layout({name: p for name, p in model.named_parameters() if p.requires_grad})
        self.parameters = self._layout.parameters
        self.width = self._layout.width
        self.device = self._layout.device
        self.row_bytes = self.width * self._layout.dtype.itemsize

    def gradients(self, losses: Callable[[], Tensor], examples: int) -> Rows:
        """Gradient of the loss [1] that `losses` returns.

        Raises ValueError for more than one example, and UnseenParameter where the loss does not depend on a parameter.
        """
        loss = losses()
        if examples != 1 or loss.shape != (1,):
            raise ValueError(f"expected one loss of one example, got shape {tuple(loss.shape)} for {examples}")
        with torch.autocast(self.device.type, enabled=False):
            parts = torch.autograd.grad(loss.sum(), list(self.parameters.values()), allow_unused=True)
        unused = [name for name, part in zip(self.parameters, parts, strict=True) if part is None]
        if unused:
            raise UnseenParameter(f"the loss does not depend on trainable parameters: {', '.join(unused)}")
        row = torch.cat([part.flatten().to(self._layout.dtype) for part in parts if part is not None])
        return Rows(row.unsqueeze(0))

    def recomputing(self) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        """`context_fn` for torch.utils.checkpoint: nothing is intercepted here."""
        return nullcontext(), nullcontext()

    def expect(self, uses: Uses) -> None:
        """Any use is exact."""

    def release(self) -> None:
        """Nothing is kept between micro-batches."""

    def unflatten(self, flat: Tensor) -> Mapping[str, Tensor]:
        """A vector [P] as one tensor for each trainable parameter, by name."""
        return self._layout.unflatten(flat)
