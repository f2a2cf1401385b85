"""One gradient for every example from one backward pass, without wrapping or changing the model.

While the forward pass runs, calls of torch functions that use a trainable parameter are handed to the file that knows
that kind of use; all other calls go through. A use that no file knows leaves a gradient in autograd's own hands, or
none at all, and is an error.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from dpcore.engine import conv, elementwise, embedding, group_norm, layer_norm, linear, rms_norm
from dpcore.engine.errors import BatchShape
from dpcore.engine.layout import Layout
from dpcore.engine.tape import Gradients, Tape, Uses

# What these make of parameters alone may still have the examples in it: their ids, or how many there are.
_WITH_EXAMPLES = embedding.HANDLERS | elementwise.COPIES
_NORMS = layer_norm.HANDLERS | rms_norm.HANDLERS | group_norm.HANDLERS
_HANDLERS = linear.HANDLERS | conv.HANDLERS | _NORMS | elementwise.HANDLERS | _WITH_EXAMPLES


class _Intercept(TorchFunctionMode):
    """constants: by identity, the tensors that are the same for every example, trainable or not."""

    def __init__(self, tape: Tape, constants: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._tape, self._constants = tape, constants

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tape = self._tape
        # Most calls use no parameter, and this is paid for every call of every micro-batch.
        if not _any_owned(tape, args) and not (kwargs and _any_owned(tape, kwargs.values())):
            return func(*args, **kwargs)
        tensors = list(_tensors((args, tuple(kwargs.values()))))
        trained = [tensor for tensor in tensors if tape.owns(tensor)]
        # Whether examples take part is told by what the tensors are, never by a shape, which can coincide.
        alone = all(id(tensor) in self._constants or tape.owns(tensor) for tensor in tensors)
        if alone and func not in _WITH_EXAMPLES:
            return tape.derived.compute(func, args, kwargs, ", ".join(dict.fromkeys(map(tape.name, trained))))
        handler = _HANDLERS.get(func)
        output = None if handler is None else handler(tape, *args, **kwargs)
        return func(*args, **kwargs) if output is None else output


class _Again:
    """Interception in a thread that has none."""

    def __init__(self, tape: Tape, constants: Mapping[int, Tensor]) -> None:
        self._mode, self._entered = _Intercept(tape, constants), False

    def __enter__(self) -> None:
        if not any(isinstance(mode, _Intercept) for mode in _get_current_function_mode_stack()):  # type: ignore[no-untyped-call]
            self._mode.__enter__()  # type: ignore[no-untyped-call]
            self._entered = True

    def __exit__(self, *error: Any) -> None:
        if self._entered:
            self._mode.__exit__(*error)  # type: ignore[no-untyped-call]


def _any_owned(tape: Tape, values: Iterable[Any]) -> bool:
    """Whether a trainable parameter is among arguments, also inside lists."""
    return any(_any_owned(tape, value) if isinstance(value, tuple | list) else tape.owns(value) for value in values)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among arguments, also inside lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


class PerExample:
    """Per-example gradients of a model's trainable parameters.

    `parameters`: the trainable ones by name, in the order of the flat vector; `width`: P, its length; `row_bytes`: what
    one more example in a micro-batch needs beside the pieces of wide matrices, which grow with its tokens; `thin`:
    whether there are none of these; `uses`: how parameters were used in the last call.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layout = Layout({name: p for name, p in model.named_parameters() if p.requires_grad})
        self.parameters = self._layout.parameters
        self.width = self._layout.width
        self.device = self._layout.device
        self.row_bytes = self._layout.thin * self._layout.dtype.itemsize
        self.thin = self._layout.thin == self.width
        # Kept alive, so that no other tensor can take the identity of one.
        self._constants: dict[int, Tensor] = {id(t): t for t in (*model.parameters(), *model.buffers())}
        self._buffer = self._no_rows()
        self._tape: Tape | None = None
        self.uses: Uses = frozenset()
        self._known_uses: Uses | None = None

    def gradients(self, losses: Callable[[], Tensor], examples: int) -> Gradients:
        """Gradients of each example's own loss; valid until the next call.

        `losses` runs the forward pass and returns one loss for each of the m `examples`; a loss must depend on its own
        example alone. Raises UnseenParameter, BatchShape, or ValueError when the losses are not a vector [m].
        """
        if examples > len(self._buffer):
            self.release()
            self._buffer = self._buffer.new_empty(examples, self._layout.thin)
        tape = self._tape = Tape(self._layout, self._buffer[:examples], examples)
        try:
            with _Intercept(tape, self._constants):
                loss = losses()
                if loss.shape != (examples,):
                    shape = tuple(loss.shape)
                    raise ValueError(f"expected one loss for each of {examples} examples, got shape {shape}")
                # The sum's gradient with respect to example i's share of the graph is that of loss i.
                with torch.autocast(self.device.type, enabled=False):
                    torch.autograd.backward(loss.sum())
        finally:
            self._tape = None
        self.uses = frozenset(tape.uses)
        # Of a single example, all gradients are its own.
        if self._known_uses is not None and examples > 1:
            for name, dimensions in sorted(self.uses - self._known_uses):
                raise BatchShape(
                    f"{name}: used on {dimensions} dimensions, as it was not when its gradients were compared"
                )
        with torch.autocast(self.device.type, enabled=False):
            return tape.finish()

    def expect(self, uses: Uses) -> None:
        """From now on another use of a parameter is an error. A path that only some records take may lay them out in
        another way, and a dimension that is none of theirs may happen to be as large as their number."""
        self._known_uses = uses

    def recomputing(self) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        """`context_fn` for torch.utils.checkpoint without re-entry: what is computed again is intercepted as it was the
        first time, also where the backward pass has a thread of its own."""
        return nullcontext(), nullcontext() if self._tape is None else _Again(self._tape, self._constants)

    def release(self) -> None:
        """Give the buffer's memory back until the next micro-batch."""
        self._buffer = self._no_rows()

    def unflatten(self, flat: Tensor) -> Mapping[str, Tensor]:
        """A vector [P] as one tensor for each trainable parameter, by name."""
        return self._layout.unflatten(flat)

    def _no_rows(self) -> Tensor:
        return torch.empty(0, self._layout.thin, dtype=self._layout.dtype, device=self._layout.device)
