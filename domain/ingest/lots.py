"""Which lot a unit draws, once and for all: by it a budget holds units out of training.

A lot follows from who the unit is and from a key alone: the same in every file, format and order, whoever else is in
it. The key keeps whoever writes rows from choosing where they go.
"""

import hmac
from collections.abc import Iterable

from domain.ingest.fingerprint import SEPARATOR, form_of

_PURPOSE = b"tacit.lot.v1\0"
"""No other keyed hash of the service begins so."""


def lot_of_record(texts: Iterable[str], key: bytes) -> int:
    """Of a record, by what its texts mean, whatever their order: below 2^64. The key is a tenant's."""
    return _lot(b"record\0" + SEPARATOR.join(sorted({form_of(text) for text in texts})).encode(), key)


def lot_of_user(mark: bytes, key: bytes) -> int:
    """Of a user, by the fingerprint of the id: all of the user's records have it."""
    return _lot(b"user\0" + mark, key)


def _lot(identity: bytes, key: bytes) -> int:
    return int.from_bytes(hmac.digest(key, _PURPOSE + identity, "sha256")[:8])
