"""How a machine cuts a draw into micro-batches: by padded length, as many records at a time as its memory takes.

Pitfalls that this file holds shut: the padded length of a record follows from that record alone, so that its gradient
does not depend on its neighbours; out of memory goes on with the same draw; what was taken into a sum once is not
taken again.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from dpcore.spec.plan import Speed

T = TypeVar("T")


class Stopped(Exception):
    """The run was asked to stop between two micro-batches."""


class MicroBatches:
    """Cuts draws, and remembers how much fits."""

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        max_length: int,
        row_bytes: int,
        speed: Speed,
        release: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """lengths: tokens of each record of the file, int64 [n]. row_bytes: what one more example needs in buffers.

        release(): called when memory ran out, to give buffers back. should_stop(): asked before every micro-batch.
        """
        multiple = speed.length_multiple
        self._padded = np.minimum(-(-lengths // multiple) * multiple, max_length)
        self._most_examples = max(1, speed.buffer_bytes // max(1, row_bytes))
        self._speed, self._release, self._should_stop = speed, release, should_stop
        self._shrink = 1  # doubled when memory runs out

    def examples(self, length: int) -> int:
        """Examples in a micro-batch of this padded length."""
        return max(1, min(self._speed.tokens // length, self._most_examples) // self._shrink)

    def each(self, drawn: np.ndarray, compute: Callable[[np.ndarray, int], T], take: Callable[[T], None]) -> None:
        """Compute on all drawn records, int64 [k], in micro-batches, and take what each gave.

        compute(indices, length): on records that are padded to `length`; out of memory, it is asked again with fewer.
        Only what was computed to its end is taken, and taken once: a sum that was half added cannot be tried again.
        Raises Stopped between two micro-batches, and whatever `compute` and `take` raise.
        """
        for length, indices in self._buckets(drawn):
            while len(indices):
                if self._should_stop():
                    raise Stopped
                size = self.examples(length)
                try:
                    computed = compute(indices[:size], length)
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if size == 1 or not out_of_memory(error):
                        raise
                    self._shrink *= 2
                    self._release()
                    continue
                take(computed)
                del computed  # its memory is needed for the next
                indices = indices[size:]

    def _buckets(self, drawn: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The draw by padded length, longest first, so that the largest buffer is made once."""
        padded = self._padded[drawn]
        for length in np.unique(padded)[::-1]:
            yield int(length), drawn[padded == length]


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)  # torch's allocator for the CPU raises a bare RuntimeError
