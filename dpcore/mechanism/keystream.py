"""Random bits for sampling and noise: a ChaCha20 keystream whose secret comes from the operating system.

Guarantee: within one `Streams` every (purpose, step) has a key of its own, handed out once; the secret never leaves
the object and is never saved, so a resumed run draws afresh. Nothing here reads or moves torch's or numpy's global
generators, and no seed of a user reaches it.
"""

import hashlib
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20


class Keystream:
    """Uniform 64-bit integers from one key."""

    def __init__(self, key: bytes) -> None:
        # A key is used for one stream only, so a constant nonce is right.
        self._cipher = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def integers(self, count: int) -> np.ndarray:
        """The next `count` integers of the stream: uint64 [count]."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8")


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
