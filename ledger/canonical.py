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


def entry_seal(salt: str, fence: str, at: str) -> str:
    """What stands in a settlement's line for its fence and its exact time (ISO 8601 with microseconds); salt and seal
    in hexadecimal. The same as ledger.entry_seal in the database."""
    return hashlib.sha256(packed(["tacit.entry.seal.v1", salt, fence, at])).hexdigest()
