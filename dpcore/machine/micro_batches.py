"""How a machine cuts a draw into micro-batches: by padded length, as many records at a time as its memory takes.

Pitfalls that this file holds shut: the padded length of a record follows from that record alone, so that its gradient
does not depend on its neighbours; out of memory goes on with the same draw; what was taken into a sum once is not
taken again.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch

from dpcore.machine import token_budget
from dpcore.terms.speed import Speed

T = TypeVar("T")

COARSEST, FINEST = 2, 8
"""Padded lengths between a length and its double where the number is chosen here. One alone gives long texts a third
more padding, and hardly fewer micro-batches."""


class Stopped(Exception):
    """The run was asked to stop between two micro-batches, or between two tokens that are sampled."""


class MicroBatches:
    """Cuts draws, and remembers how much fits."""

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        max_length: int,
        expected_batch: int,
        row_bytes: int,
        thin: bool,
        speed: Speed,
        device: torch.device,
        release: Callable[[], None],
        recompute: Callable[[], bool],
        should_stop: Callable[[], bool],
    ) -> None:
        """lengths: tokens of each record of the file, int64 [n]. row_bytes: what one more example needs in buffers.
        thin: whether that is all that it leaves behind.

        release(): called when memory ran out, to give buffers back. recompute(): called when one single record does
        not fit, to compute with less memory from now on; False when it cannot. should_stop(): asked before every
        micro-batch.
        """
        self._lengths, self._per_doubling = lengths, speed.lengths_per_doubling
        self._max_length, self._expected_batch, self._device = max_length, expected_batch, device
        self._tokens = None if speed.tokens == "auto" else speed.tokens
        self._thin, self._cpu_tokens = thin, token_budget.cpu_tokens(thin=thin)
        self.buffer_bytes = token_budget.buffer_bytes(device) if speed.buffer_bytes == "auto" else speed.buffer_bytes
        self._most_examples = max(1, self.buffer_bytes // max(1, row_bytes))
        self._release, self._recompute, self._should_stop = release, recompute, should_stop
        self._shrink = 1  # doubled when memory runs out

    def rehearse(self, run: Callable[[int], None]) -> None:
        """Find the token budget where none was given, and run the largest micro-batch of the largest length once.

        run(count): compute on that many public records of the largest length.
        """
        if self._tokens is None:
            try:
                self._tokens = token_budget.find(
                    run,
                    length=self._max_length,
                    most=self._most_examples,
                    device=self._device,
                    tokens=self._cpu_tokens,
                )
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._tokens = self._max_length
        largest = np.arange(self.examples(self._max_length))
        self.first(largest, self._max_length, lambda now, _: run(len(now)))

    def limit(self, examples: int) -> None:
        """At most this many examples in a micro-batch from now on."""
        self._most_examples = min(self._most_examples, examples)
        vars(self).pop("_steps", None)

    def examples(self, length: int) -> int:
        """Examples in a micro-batch of this padded length."""
        tokens = self._cpu_tokens if self._tokens is None else self._tokens
        return max(1, min(tokens // length, self._most_examples) // self._shrink)

    def each(self, drawn: np.ndarray, compute: Callable[[np.ndarray, int], T], take: Callable[[T], None]) -> None:
        """Compute on all drawn records, int64 [k], in micro-batches, and take what each gave.

        compute(indices, length): on records that are padded to `length`; out of memory, it is asked again with fewer,
        and at last with one record whose layers are recomputed.
        Only what was computed to its end is taken, and taken once: a sum that was half added cannot be tried again.
        Raises Stopped between two micro-batches, and whatever `compute` and `take` raise.
        """
        for length, indices in self._buckets(drawn):
            while len(indices):
                if self._should_stop():
                    raise Stopped
                computed, size = self.first(indices, length, compute)
                take(computed)
                del computed  # its memory is needed for the next
                indices = indices[size:]

    def first(self, indices: np.ndarray, length: int, compute: Callable[[np.ndarray, int], T]) -> tuple[T, int]:
        """Compute on as many of the first records as fit; what that gave, and how many they were.

        Memory that runs out is answered as `each` says.
        """
        while True:
            size = min(self.examples(length), len(indices))
            try:
                return compute(indices[:size], length), size
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._release()
                if size > 1:
                    while self.examples(length) >= size:
                        self._shrink *= 2
                elif self._recompute():
                    self._shrink = 1
                else:
                    raise

    def padded_lengths(self, shortest: int) -> list[int]:
        """All lengths that a record of at least `shortest` tokens may be padded to, whichever the file has."""
        return [int(length) for length in np.unique(self._pad(np.arange(shortest, self._max_length + 1)))]

    @cached_property
    def _padded(self) -> np.ndarray:
        """The length that each record is padded to, for good: it is asked for when the token budget is known."""
        return self._pad(self._lengths)

    def _pad(self, lengths: np.ndarray) -> np.ndarray:
        return padded(lengths, most=self._max_length, per_doubling=self._steps)

    @cached_property
    def _steps(self) -> int:
        if self._per_doubling != "auto":
            return self._per_doubling
        return lengths_per_doubling(self._expected_batch / self.examples(self._max_length), thin=self._thin)

    def _buckets(self, drawn: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The draw by padded length, longest first, so that the largest buffer is made once."""
        padded = self._padded[drawn]
        for length in np.unique(padded)[::-1]:
            yield int(length), drawn[padded == length]


def lengths_per_doubling(full: float, *, thin: bool) -> int:
    """How many padded lengths there should be between a length and its double, from public numbers.

    full: micro-batches of an expected draw if all records had the largest length. Of k lengths, padding costs a share
    that falls as 1/k, and the micro-batches that their numbers do not fill cost a share that grows as k/full, so the
    best k grows with the root of `full`. Where wide weights train (thin: whether none do) each micro-batch also adds to
    a sum of their size: it costs about twice as much, and a root of two fewer are best.
    """
    return min(FINEST, max(COARSEST, round(math.sqrt(full) * (1 if thin else 0.7))))


def padded(lengths: np.ndarray, *, most: int, per_doubling: int) -> np.ndarray:
    """The length that each record is padded to, int64 [n]: its own, rounded up to one of `per_doubling` steps between a
    power of two and the next. No record is longer by more than one part in `per_doubling`, whatever its length, and
    the steps are few."""
    power = 2 ** np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    step = np.maximum(1, power // per_doubling)
    rounded: np.ndarray = np.minimum(-(-lengths // step) * step, most)
    return rounded


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)  # torch's allocator for the CPU raises a bare RuntimeError
