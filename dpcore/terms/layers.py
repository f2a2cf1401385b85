"""Which layers of a model stay, by number from 0: what a caller may ask for, and what is chosen where only their number
is named."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from dpcore.terms.errors import FieldError


@runtime_checkable
class Shrinking(Protocol):
    """Options under which a model has fewer layers while it trains."""

    def layers_from(self, layers: int, steps: int) -> Mapping[int, int]:
        """How many of so many layers are left from which step on, counted from 0, in order."""


def evenly(count: int, of: int) -> tuple[int, ...]:
    """`count` of so many layers, evenly spread, the first and the last among them; of one alone the first, which reads
    the embeddings."""
    if count == 1:
        return (0,)
    return tuple((2 * i * (of - 1) + count - 1) // (2 * (count - 1)) for i in range(count))


def kept(field: str, asked: int | Sequence[int], of: int) -> tuple[int, ...]:
    """The layers that stay, in the model's order, of a model with so many. asked: their number, or the layers.

    Raises FieldError for none, for more than there are, and for a list in which one is repeated, unknown or out of
    order.
    """
    if isinstance(asked, int):
        if not 1 <= asked <= of:
            raise FieldError(field, f"{field}: {asked} of the model's {of} layers cannot be kept; name 1 to {of}")
        return evenly(asked, of)
    if not asked:
        raise FieldError(field, f"{field}: no layer is named; name some of 0 to {of - 1}, or how many")
    wrong = next((layer for layer in asked if not 0 <= layer < of), None)
    if wrong is not None:
        raise FieldError(field, f"{field}: the model has no layer {wrong}; its layers are 0 to {of - 1}")
    if sorted(set(asked)) != [*asked]:
        raise FieldError(field, f"{field}: each layer once, in the model's order, such as {sorted(set(asked))}")
    return tuple(asked)
