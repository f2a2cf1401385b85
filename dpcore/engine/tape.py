"""What the layers of one backward pass leave behind: a gradient of every trainable parameter for every example."""

import torch
from torch import Tensor

from dpcore.engine.derived import Derived
from dpcore.engine.errors import BatchShape, UnseenParameter
from dpcore.engine.layout import Layout
from dpcore.engine.rows import Rows
from dpcore.engine.wide import Wide

Uses = frozenset[tuple[str, int]]
"""How parameters were used: each one's name, and the dimensions of the input that it met."""


class Tape:
    """Gradients of one micro-batch of `examples`, by parameter. Each use of a parameter adds to its gradients.

    buffer: float [m, layout.thin], overwritten; it holds what belongs to thin parameters.
    """

    def __init__(self, layout: Layout, buffer: Tensor, examples: int) -> None:
        self.examples = examples
        self.derived = Derived()
        self.uses: set[tuple[str, int]] = set()
        self._layout, self._buffer = layout, buffer
        self._seen: set[str] = set()
        self._wide = {name: Wide(layout.matrix(p)) for name, p in layout.parameters.items() if not layout.is_thin(p)}

    def owns(self, tensor: object) -> bool:
        """Whether this very tensor is a trainable parameter, or made from nothing else."""
        return self._layout.owns(tensor) or self.derived.owns(tensor)

    def name(self, parameter: Tensor) -> str:
        """The name of what the tape owns."""
        return self._layout.name(parameter) if self._layout.owns(parameter) else self.derived.name(parameter)

    def require_batch(self, tensor: Tensor, parameter: Tensor, *, least: int = 2) -> None:
        """Raises BatchShape unless dimension 0 of a layer's input, of `least` dimensions, runs over the examples."""
        if tensor.dim() < least or tensor.shape[0] != self.examples:
            raise BatchShape(
                f"{self.name(parameter)}: the layer's input has shape {tuple(tensor.shape)}, but its first "
                f"dimension must run over the {self.examples} examples of the micro-batch"
            )
        self.uses.add((self.name(parameter), tensor.dim()))

    def require_examples(self, count: object, parameter: Tensor) -> None:
        """Raises BatchShape unless a parameter is copied once for each example."""
        if count != self.examples:
            raise BatchShape(
                f"{self.name(parameter)}: copied {count} times, not once for each of {self.examples} examples"
            )

    def write(self, parameter: Tensor, gradients: Tensor) -> None:
        """Take the gradients [m, *parameter.shape] of one use."""
        if self.derived.owns(parameter):
            self.derived.write(parameter, gradients.to(self._layout.dtype))
        elif not self._layout.is_thin(parameter):
            matrices = gradients.reshape(self.examples, *self._layout.matrix(parameter))
            self._of(parameter).add_whole(matrices.to(self._layout.dtype))
        elif self._see(parameter):
            self._slice(parameter).add_(gradients)
        else:
            self._slice(parameter).copy_(gradients)

    def write_products(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Take left^T right, of [m, T, rows] and [m, T, columns], as the gradients of one use of a matrix."""
        # Detached: an input that knows its history would keep the whole graph alive.
        left, right = left.detach().to(self._layout.dtype), right.detach().to(self._layout.dtype)
        if self.derived.owns(parameter) or self._layout.is_thin(parameter):
            self.write(parameter, torch.bmm(left.transpose(1, 2), right).view(-1, *parameter.shape))
        else:
            self._of(parameter).add_products(left, right)

    def write_lookups(self, parameter: Tensor, tokens: Tensor, rows: Tensor) -> None:
        """Take gradients `rows` [m, S, columns] of those rows of a matrix that `tokens` [m, S] name."""
        rows = rows.to(self._layout.dtype)
        each = torch.arange(self.examples, device=tokens.device).unsqueeze(1)
        if self.derived.owns(parameter):
            whole = rows.new_zeros(self.examples, *parameter.shape)
            self.write(parameter, whole.index_put_((each, tokens), rows, accumulate=True))
        elif self._layout.is_thin(parameter):
            part = self._slice(parameter)
            if not self._see(parameter):
                part.zero_()
            part.index_put_((each, tokens), rows, accumulate=True)
        else:
            self._of(parameter).add_lookups(tokens, rows)

    def finish(self) -> "Gradients":
        """The gradients of the micro-batch.

        Raises UnseenParameter when autograd computed a gradient itself, or nothing was written: some use of the
        parameter was not seen, and its per-example gradient is incomplete.
        """
        parameters = self._layout.parameters
        for parameter, gradients in self.derived.pull(list(parameters.values())):
            self.write(parameter, gradients)
        names = [name for name, p in parameters.items() if p.grad is not None or name not in self._seen]
        names += self.derived.mishandled()
        for p in parameters.values():
            p.grad = None
        if names:
            raise UnseenParameter(f"no per-example gradient for trainable parameters: {', '.join(names)}")
        return Gradients(self._layout, self._buffer, self._wide)

    def _see(self, parameter: Tensor) -> bool:
        """Note a use; whether there was one before."""
        name = self._layout.name(parameter)
        known = name in self._seen
        self._seen.add(name)
        return known

    def _of(self, parameter: Tensor) -> Wide:
        self._see(parameter)
        return self._wide[self._layout.name(parameter)]

    def _slice(self, parameter: Tensor) -> Tensor:
        """A thin parameter's part of the buffer: [m, *shape]."""
        return self._buffer[:, self._layout.place(parameter)].view(self.examples, *parameter.shape)


class Gradients:
    """Gradients of the examples of a micro-batch, over all trainable parameters.

    `thin`: float [m, layout.thin], rows for the thin parameters.
    """

    def __init__(self, layout: Layout, thin: Tensor, wide: dict[str, Wide]) -> None:
        self.thin = thin
        self._layout = layout
        # By where their places begin: slices cannot be keys before Python 3.12.
        places = {name: layout.place(layout.parameters[name]) for name in wide}
        self._wide = {places[name].start: (places[name], part) for name, part in wide.items()}
        self._wide_norms = {start: part.norms() for start, (_, part) in self._wide.items()}
        parts = [Rows(thin).norms(), *self._wide_norms.values()]
        self._norms = torch.stack(parts).norm(dim=0) if wide else parts[0]

    def norms(self) -> Tensor:
        """L2 norm of each example's gradient: [m]."""
        return self._norms

    def add_weighted(self, value: Tensor, factors: Tensor) -> None:
        """Add the sum of factors [m] times the gradients to `value`, float64 [P]; a zero factor adds nothing."""
        Rows(self.thin).add_weighted(value[: self._layout.thin], factors)
        for place, part in self._wide.values():
            part.add_weighted(value[place], factors)

    def norms_at(self, place: slice) -> Tensor:
        """L2 norm of each example's gradient of the parameter at this place of the flat vector: [m]."""
        return Rows(self.thin).norms_at(place) if place.stop <= self._layout.thin else self._wide_norms[place.start]

    def add_weighted_at(self, place: slice, value: Tensor, factors: Tensor) -> None:
        """Add the sum of factors [m] times the gradients of that parameter to its place in `value`, float64 [P]."""
        if place.stop <= self._layout.thin:
            Rows(self.thin).add_weighted_at(place, value, factors)
        else:
            self._wide[place.start][1].add_weighted(value[place], factors)
