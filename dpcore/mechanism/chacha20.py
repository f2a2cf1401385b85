"""ChaCha20's keystream by torch's integer arithmetic, on whatever device: the bits of the library's cipher, where
noise is needed (RFC 8439, section 2.3). Everything wraps at 32 bits."""

import struct

import torch
from torch import Tensor

WORDS = 16
"""Of 32 bits, in a block."""
CONSTANTS = struct.unpack("<4i", b"expand 32-byte k")
ROUNDS = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)
"""The quarter rounds of a double round: columns, then diagonals."""


def blocks(key: bytes, first: int, count: int, device: torch.device) -> Tensor:
    """Blocks `first`, `first` + 1, ... of the stream with a nonce of zero: int32 [count, 16], the words in order.

    key: 32 bytes. Raises ValueError for a key of another length, and past the last block, whose number is 2^32 - 1.
    """
    require_left(first, count)
    counter = torch.arange(first, first + count, dtype=torch.int64, device=device).to(torch.int32)
    start = [torch.full((count,), word, dtype=torch.int32, device=device) for word in (*CONSTANTS, *words_of(key))]
    start += [counter, *(torch.zeros_like(counter) for _ in range(3))]
    state = [word.clone() for word in start]
    for _ in range(10):
        for a, b, c, d in ROUNDS:
            _quarter(state, a, b, c, d)
    return torch.stack([word + begun for word, begun in zip(state, start, strict=True)], dim=1)


def require_left(first: int, count: int) -> None:
    """Raises ValueError where a stream has no such blocks."""
    if first < 0 or first + count > 2**32:
        raise ValueError("a stream has 2^32 blocks")


def words_of(key: bytes) -> tuple[int, ...]:
    """A key as eight signed words of 32 bits. Raises ValueError for a key of another length."""
    if len(key) != 32:
        raise ValueError(f"a key has 32 bytes, not {len(key)}")
    return struct.unpack("<8i", key)


def _quarter(state: list[Tensor], a: int, b: int, c: int, d: int) -> None:
    for sum_, added, turned, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[sum_] += state[added]
        mixed = state[turned] ^ state[sum_]
        # Shifting to the right repeats the sign.
        state[turned] = (mixed << by) | ((mixed >> (32 - by)) & ((1 << by) - 1))
