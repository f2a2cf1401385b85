"""The form of an encrypted blob: a header and chunks under AES-256-GCM, so that a range is read without the rest.

    header   "tacit\\0\\0\\1", salt (32 bytes), length of the plaintext (8 bytes)
    chunk i  AES-256-GCM of CHUNK bytes of plaintext (the last has what is left; an empty blob has one empty chunk)

Each blob is encrypted under HKDF-SHA256(data key, salt, name and length), which no other blob and no other version of
this one has, with the chunk's number as nonce and the number and whether it is the last as associated data. A chunk
that was changed, moved, dropped or taken from another blob does not open, nor does a blob under another name or of
another length. (Hoang, Reyhanitabar, Rogaway and Vizar, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015: STREAM; Tink's AES-GCM-HKDF streaming.)
"""

import hmac
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY = 32
"""Bytes of a data key."""
CHUNK = 2**20
TAG = 16
MAGIC = b"tacit\0\0\1"
SALT = 32
HEADER = len(MAGIC) + SALT + 8


class Tampered(ValueError):
    """A blob is not what was stored under this name."""


@dataclass(frozen=True)
class Seal:
    """One writing of one blob: all that the key of its chunks is derived from. What opens under it was written then."""

    key: bytes = field(repr=False)
    name: str
    salt: bytes
    size: int
    """Bytes of the plaintext; of a blob from a store, authentic once any chunk has been opened."""

    def mac(self, use: bytes, text: bytes) -> bytes:
        """HMAC-SHA256 of a text under a key derived from the blob's data key for this use alone."""
        derived = HKDF(SHA256(), KEY, None, b"tacit.blob.mac.v1\0" + use).derive(self.key)
        return hmac.digest(derived, text, "sha256")


def new_seal(key: bytes, name: str, size: int) -> Seal:
    """For a blob that is to be written; its salt is fresh."""
    return Seal(key, name, secrets.token_bytes(SALT), size)


def sealed(source: IO[bytes], seal: Seal) -> Iterator[bytes]:
    """The blob, in pieces, whose plaintext is the bytes of `source`."""
    cipher = _cipher(seal)
    yield MAGIC + seal.salt + seal.size.to_bytes(8)
    last = _last(seal.size)
    for number in range(last + 1):
        wanted = min(CHUNK, seal.size - number * CHUNK)
        plain = source.read(wanted)
        if len(plain) != wanted:
            raise ValueError(f"{seal.name}: the source is shorter than {seal.size} bytes")
        yield cipher.encrypt(_nonce(number), plain, _place(number, last))


class Sealed:
    """A blob to read from. `fetch(start, end)` answers these of its stored bytes."""

    def __init__(self, key: bytes, name: str, stored: int, fetch: Callable[[int, int], bytes]) -> None:
        """stored: bytes of the blob in the store. Raises Tampered when they are too few or too many."""
        header = fetch(0, HEADER) if stored >= HEADER else b""
        if not header.startswith(MAGIC):
            raise Tampered(f"{name} is not an encrypted blob")
        self.seal = Seal(key, name, header[len(MAGIC) : -8], int.from_bytes(header[-8:]))
        self.size = self.seal.size
        if stored != HEADER + self.size + (_last(self.size) + 1) * TAG:
            raise Tampered(f"{name} is not as long as it was stored")
        self._fetch, self._cipher = fetch, _cipher(self.seal)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes start to end (exclusive) of the plaintext, chunk by chunk. Raises Tampered."""
        end = min(end, self.size)
        while start < end:
            number = start // CHUNK
            first = number * CHUNK
            plain = self._open(number)[start - first : end - first]
            yield plain
            start += len(plain)

    def whole(self) -> bytes:
        """All of the plaintext. Raises Tampered."""
        return b"".join(self._open(number) for number in range(_last(self.size) + 1))

    def _open(self, number: int) -> bytes:
        last = _last(self.size)
        length = min(CHUNK, self.size - number * CHUNK) + TAG
        start = HEADER + number * (CHUNK + TAG)
        try:
            stored = self._fetch(start, start + length)
            return self._cipher.decrypt(_nonce(number), stored, _place(number, last))
        except InvalidTag:
            raise Tampered(f"chunk {number} of {self.seal.name} is not what was stored") from None


def _cipher(seal: Seal) -> AESGCM:
    info = b"tacit.blob.v1\0" + seal.size.to_bytes(8) + seal.name.encode()
    return AESGCM(HKDF(SHA256(), KEY, seal.salt, info).derive(seal.key))


def _last(size: int) -> int:
    """The number of the last chunk."""
    return max(0, size - 1) // CHUNK


def _nonce(number: int) -> bytes:
    return number.to_bytes(12)


def _place(number: int, last: int) -> bytes:
    return number.to_bytes(8) + (b"last" if number == last else b"more")
