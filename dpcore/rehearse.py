"""What is tried before the first step, on public records: every padded length, padding, mixed lengths, the largest
micro-batch, and weights that have moved. What public values decide fails here, where nothing has been paid for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor, nn

from dpcore.engine.errors import BatchShape, NotTrainable, Packed, Regrouped, Unrunnable, UnseenParameter
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.rehearsal import MOVES, Compared, NotFinite, NothingToCompare, compare, moved, require_digits
from dpcore.engine.rows import Rows
from dpcore.engine.tape import Gradients, Uses
from dpcore.engine.trace import MORE, require_apart
from dpcore.machine.micro_batches import MicroBatches, out_of_memory

SLOWLY = (UnseenParameter, BatchShape, Packed, Regrouped, Unrunnable)
"""What the fast engine cannot do, plain autograd may, a record at a time."""

_CHECKED, _CHECKED_TOKENS = 3, 32
"""Records whose gradients are compared with plain autograd's first, and their length at most."""
_CHECKED_LONG = 2
"""The same at every other length, where they fit one micro-batch: two show whether they meet."""

R = TypeVar("R")


class Task(Protocol[R]):
    """What is needed to know about a task."""

    max_length: int

    def losses(self, model: nn.Module, records: R, indices: np.ndarray, length: int) -> Tensor:
        """One loss for each index [m], every record padded to `length`; each depends on its own record alone."""

    def synthetic(self, count: int, length: int) -> R:
        """Public stand-in records, all of `length` tokens."""


@runtime_checkable
class OfTokens(Protocol):
    """A task whose records have tokens, and are padded."""

    @property
    def shortest(self) -> int:
        """Fewest tokens of a record."""

    def mixed(self, count: int, length: int) -> Any:
        """Public stand-in records of at most `length` tokens, each of another length."""

    def require_fit(self, model: nn.Module) -> None:
        """Raises OutsideTable for a model that lacks a token which records may hold, or padding."""


class Rehearsal:
    """Tries a model with one engine."""

    def __init__(
        self,
        model: nn.Module,
        task: Task[Any],
        engine: PerExample | OneByOne,
        micro_batches: MicroBatches,
        take: Callable[[Gradients | Rows], None],
    ) -> None:
        """take(gradients): add a micro-batch's gradients to a sum that is thrown away."""
        self._model, self._task, self._engine = model, task, engine
        self._micro_batches, self._take = micro_batches, take
        self._records = task.mixed if isinstance(task, OfTokens) else task.synthetic
        self._shortest = task.shortest if isinstance(task, OfTokens) else 1
        self._uses: Uses = frozenset()
        self._distance = 0.0

    def run(self) -> float:
        """The slack that a sum must claim: of the clip norm, for each unit expected.

        Raises NotTrainable, with module or parameter and the length, for what cannot be trained exactly, or of which
        the engine cannot tell; SLOWLY where another engine may; OutOfMemoryError where one record does not fit.
        """
        require_digits(self._model)
        if isinstance(self._task, OfTokens):
            self._task.require_fit(self._model)
        longest = self._task.max_length
        short = min(_CHECKED_TOKENS, longest)
        if isinstance(self._engine, PerExample):  # a model whose records meet is not taken one at a time either
            self._require_apart(short)
        self._compare(_CHECKED, short)
        self._micro_batches.rehearse(self._largest)
        lengths = self._micro_batches.padded_lengths(min(self._shortest, longest))
        for length in lengths:
            with suppress(NothingToCompare):  # a text of one token teaches a language model nothing
                self._compare(_CHECKED_LONG, length)
        shared = [length for length in lengths if self._micro_batches.examples(length) >= _CHECKED_LONG]
        for length in sorted({short, *shared[-1:]}):
            self._compare_moved(length)
        for length in shared[-1:]:
            self._require_apart(length)
        self._engine.expect(self._uses)
        return Compared(self._uses, self._distance).slack

    def _require_apart(self, length: int) -> None:
        public = self._records(MORE, length)
        with at_length(length):
            require_apart(self._model, lambda now: self._losses(public, now, length))

    def _largest(self, count: int) -> None:
        longest = self._task.max_length
        public = self._task.synthetic(count, longest)
        with at_length(longest):
            self._take(self._engine.gradients(lambda: self._losses(public, np.arange(count), longest), count))

    def _compare_moved(self, length: int) -> None:
        for by in MOVES:
            # So far from where they were, there may be nothing left.
            with moved(self._engine.parameters, by), suppress(NotFinite, NothingToCompare):
                self._compare(_CHECKED_LONG, length)

    def _compare(self, count: int, length: int) -> None:
        """Hold the engine against plain autograd on public records padded to this length, as many at a time as share a
        micro-batch. Raises NothingToCompare where the gradients of all are zero."""
        public = self._records(count, length)
        compared, left = False, np.arange(count)

        def together(now: np.ndarray, length: int) -> bool:
            with at_length(length):
                try:
                    made = compare(
                        self._engine, self._model, lambda some: self._losses(public, now[some], length), len(now)
                    )
                except NothingToCompare:
                    return False
            self._uses, self._distance = self._uses | made.uses, max(self._distance, made.distance)
            return True

        while len(left):
            found, size = self._micro_batches.first(left, length, together)
            compared, left = compared or found, left[size:]
        if not compared:
            raise NothingToCompare(f"the gradients of all public records padded to {length} tokens are zero")

    def _losses(self, public: Any, indices: np.ndarray, length: int) -> Tensor:
        return self._task.losses(self._model, public, indices, length)


@contextmanager
def at_length(length: int) -> Iterator[None]:
    """What goes wrong inside says at which length."""
    try:
        yield
    except NotTrainable as error:
        raise type(error)(f"{error} (records padded to {length} tokens)") from error
    except ValueError:
        raise  # the caller's own mistake
    except Exception as error:
        if out_of_memory(error):
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        raise Unrunnable(f"records padded to {length} tokens cannot be run: {type(error).__name__}: {first}") from error
