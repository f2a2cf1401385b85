"""One gradient for every example from one backward pass, without wrapping or changing the model.

While the forward pass runs, calls of torch functions that use a trainable parameter are handed to the file that knows
that kind of use; all other calls go through. A use that no file knows leaves a gradient in autograd's own hands, or
none at all, and is an error.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dpcore.engine import elementwise, embedding, layer_norm, linear
from dpcore.engine.layout import Layout
from dpcore.engine.tape import Gradients, Tape

_HANDLERS = linear.HANDLERS | embedding.HANDLERS | layer_norm.HANDLERS | elementwise.HANDLERS


class _Intercept(TorchFunctionMode):
    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None:
            output = handler(self._tape, *args, **(kwargs or {}))
            if output is not None:
                return output
        return func(*args, **(kwargs or {}))


class PerExample:
    """Per-example gradients of a model's trainable parameters.

    `parameters`: the trainable ones by name, in the order of the flat vector; `width`: P, its length; `row_bytes`: what
    one more example in a micro-batch needs beside the pieces of wide matrices, which grow with its tokens.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layout = Layout({name: p for name, p in model.named_parameters() if p.requires_grad})
        self.parameters = self._layout.parameters
        self.width = self._layout.width
        self.device = self._layout.device
        self.row_bytes = self._layout.thin * self._layout.dtype.itemsize
        self._buffer = self._no_rows()

    def gradients(self, losses: Callable[[], Tensor], examples: int) -> Gradients:
        """Gradients of each example's own loss; valid until the next call.

        `losses` runs the forward pass and returns one loss for each of the m `examples`; a loss must depend on its own
        example alone. Raises UnseenParameter, BatchShape, or ValueError when the losses are not a vector [m].
        """
        if examples > len(self._buffer):
            self.release()
            self._buffer = self._buffer.new_empty(examples, self._layout.thin)
        tape = Tape(self._layout, self._buffer[:examples], examples)
        with _Intercept(tape):
            loss = losses()
            if loss.shape != (examples,):
                raise ValueError(f"expected one loss for each of {examples} examples, got shape {tuple(loss.shape)}")
            # The sum's gradient with respect to example i's share of the graph is that of loss i.
            torch.autograd.backward(loss.sum())
        return tape.finish()

    def release(self) -> None:
        """Give the buffer's memory back until the next micro-batch."""
        self._buffer = self._no_rows()

    def unflatten(self, flat: Tensor) -> Mapping[str, Tensor]:
        """A vector [P] as one tensor for each trainable parameter, by name."""
        return self._layout.unflatten(flat)

    def _no_rows(self) -> Tensor:
        return torch.empty(0, self._layout.thin, dtype=self._layout.dtype, device=self._layout.device)
