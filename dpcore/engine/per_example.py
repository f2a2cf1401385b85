"""One gradient for every example from one backward pass, without wrapping or changing the model.

While the forward pass runs, calls of torch functions that use a trainable parameter are handed to the file that knows
that kind of parameter; all other calls go through. A use that no file knows leaves a gradient in autograd's own hands,
or none at all, and is an error.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dpcore.engine import linear
from dpcore.engine.buffer import Buffer
from dpcore.engine.rows import Rows

_HANDLERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {linear.FUNCTION: linear.handle}


class _Intercept(TorchFunctionMode):
    def __init__(self, buffer: Buffer) -> None:
        super().__init__()
        self._buffer = buffer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None:
            output = handler(self._buffer, *args, **(kwargs or {}))
            if output is not None:
                return output
        return func(*args, **(kwargs or {}))


class PerExample:
    """Per-example gradients of a model's trainable parameters.

    `parameters`: the trainable ones by name, in the order of the flat vector; `width`: P, its length.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffer = Buffer({name: p for name, p in model.named_parameters() if p.requires_grad})
        self.parameters = self._buffer.parameters
        self.width = self._buffer.width
        self.device = self._buffer.device

    def gradients(self, losses: Callable[[], Tensor], examples: int) -> Rows:
        """Gradients of each example's own loss; valid until the next call.

        `losses` runs the forward pass and returns one loss for each of the m `examples`; a loss must depend on its own
        example alone. Raises UnseenParameter, BatchShape, or ValueError when the losses are not a vector [m].
        """
        self._buffer.begin(examples)
        with _Intercept(self._buffer):
            loss = losses()
            if loss.shape != (examples,):
                raise ValueError(f"expected one loss for each of {examples} examples, got shape {tuple(loss.shape)}")
            # The sum's gradient with respect to example i's share of the graph is that of loss i.
            torch.autograd.backward(loss.sum())
        return Rows(self._buffer.finish())

    def release(self) -> None:
        """Give the memory back until the next micro-batch."""
        self._buffer.release()

    def unflatten(self, flat: Tensor) -> Mapping[str, Tensor]:
        """A vector [P] as one tensor for each trainable parameter, by name."""
        return self._buffer.unflatten(flat)
