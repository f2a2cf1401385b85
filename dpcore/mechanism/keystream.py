"""Random bits for sampling and noise: a ChaCha20 keystream whose secret comes from the operating system.

Guarantee: within one `Streams` every (purpose, step) has a key of its own, handed out once; the secret never leaves
the object and is never saved, so a resumed run draws afresh. Nothing here reads or moves torch's or numpy's global
generators, and no seed of a user reaches it.
"""

import hashlib
import logging
import os
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from dpcore.mechanism import chacha20

_logger = logging.getLogger(__name__)
_IN_A_BLOCK = 8
"""Integers."""


class Keystream:
    """Uniform 64-bit integers from one key, made here or on a device: the same, and never twice."""

    def __init__(self, key: bytes) -> None:
        # A key is used for one stream only, so a constant nonce is right.
        self._cipher = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
        self._key, self._here, self._there = key, 0, 0

    def integers(self, count: int) -> np.ndarray:
        """The next `count` integers of the stream: uint64 [count]. Raises ValueError after `integers_on`."""
        if self._there:
            raise ValueError("this stream is read on a device")
        self._here += count
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8")

    def integers_on(self, device: torch.device, count: int) -> torch.Tensor:
        """The next `count` integers, made where they are needed: int64 [count], whose bits they are. Raises ValueError
        after `integers`."""
        if self._here:
            raise ValueError("this stream is read here")
        first, skipped = divmod(self._there, _IN_A_BLOCK)
        last = -(-(self._there + count) // _IN_A_BLOCK)
        self._there += count
        made = _cipher_on(device.type).blocks(self._key, first, last - first, device)
        integers: torch.Tensor = made.view(torch.int64).flatten()[skipped : skipped + count]
        return integers


class Streams:
    """Keystreams by purpose and step, all from one secret.

    `test_secret` makes the streams repeatable and with it voids every guarantee: tests only.
    """

    def __init__(self, *, test_secret: bytes | None = None) -> None:
        self._secret = os.urandom(32) if test_secret is None else hashlib.blake2b(test_secret, digest_size=32).digest()
        self._given: dict[str, int] = {}

    def at(self, purpose: str, step: int) -> Keystream:
        """The stream for one purpose ("sampling", "noise") at one step. Raises ValueError when asked for it again."""
        if step <= self._given.get(purpose, -1):
            raise ValueError(f"the {purpose} stream of step {step} was already handed out")
        self._given[purpose] = step
        key = hashlib.blake2b(step.to_bytes(8, "little"), key=self._secret, person=purpose.encode(), digest_size=32)
        return Keystream(key.digest())


@cache
def _cipher_on(kind: str) -> ModuleType:
    """What makes the stream's blocks on such a device: one kernel, where Triton makes one that is right, and torch's
    arithmetic elsewhere."""
    if kind != "cuda" or find_spec("triton") is None:
        return chacha20
    key, count = os.urandom(32), 300
    try:
        from dpcore.mechanism import chacha20_kernel

        made = chacha20_kernel.blocks(key, 0, count, torch.device(kind)).cpu().view(torch.int64).flatten().numpy()
    except Exception:  # whatever a compiler or a driver raises: noise must not fail where it is already paid for
        _logger.warning("noise is drawn without the kernel, which cannot be used here", exc_info=True)
        return chacha20
    right = np.array_equal(made.view(np.uint64), Keystream(key).integers(count * _IN_A_BLOCK))
    return chacha20_kernel if right else chacha20
