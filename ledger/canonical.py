"""Canonical bytes: what hashes and signatures cover."""

import hashlib
from collections.abc import Sequence


def packed(fields: Sequence[str]) -> bytes:
    """Each field as its length (8 bytes, big endian) and its UTF-8 text; the same as ledger.packed in the database."""
    encoded = [f.encode() for f in fields]
    return b"".join(len(e).to_bytes(8, "big") + e for e in encoded)


def entry_hash(prev_hash: bytes, fields: Sequence[str]) -> bytes:
    """The hash of an entry in its budget's chain."""
    return hashlib.sha256(prev_hash + packed(fields)).digest()
