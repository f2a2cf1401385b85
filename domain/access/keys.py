"""API keys: 32 random bytes with a prefix and a checksum, kept as HMAC-SHA256 under the service's pepper.

A second HMAC, the seal, ties the secrets of a key to its id, tenant, scopes and project: a row that somebody wrote who
has the database and not the pepper opens nothing, whosever mac it bears. Keys from before there were seals are
`legacy`, and pass without one until they are rotated.
"""

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain.kit.ids import new_id
from ledger.canonical import packed

PREFIX = "tacit_"


@dataclass(frozen=True)
class KeyMaterial:
    """A new key: `text` is shown once to its owner and never stored."""

    id: str
    text: str
    prefix: str
    mac: bytes


def new_key(pepper: bytes) -> KeyMaterial:
    """Make a key; `pepper` is the service's HMAC secret."""
    body = secrets.token_hex(32)
    text = f"{PREFIX}{body}{_checksum(body)}"
    return KeyMaterial(id=new_id("key"), text=text, prefix=text[:12], mac=key_mac(text, pepper))


def key_mac(text: str, pepper: bytes) -> bytes:
    """What a key is looked up by."""
    return hmac.new(pepper, text.encode(), hashlib.sha256).digest()


def key_seal(key: Mapping[str, Any], pepper: bytes) -> bytes:
    """Of a row of `api_key`, by its columns' names."""
    scopes, previous = sorted(key["scopes"]), key.get("previous_mac")
    text = [
        "tacit.key.v1",
        key["id"],
        key["tenant_id"],
        key.get("project") or "",
        str(key.get("secret_number", 0)),
        key["mac"].hex(),
        "" if previous is None else previous.hex(),
        *scopes,
    ]
    return hmac.digest(hmac.digest(pepper, b"tacit.key-seal", "sha256"), packed(text), "sha256")


def is_sealed(key: Mapping[str, Any], pepper: bytes) -> bool:
    """Whether a row of `api_key` is one that the service wrote."""
    return key["legacy"] or hmac.compare_digest(key["seal"] or b"", key_seal(key, pepper))


def well_formed(text: str) -> bool:
    """Whether prefix and checksum hold, so that a typo never reaches the database."""
    body, check = text.removeprefix(PREFIX)[:-8], text[-8:]
    return (
        text.startswith(PREFIX) and len(body) == 64 and text.isascii() and hmac.compare_digest(check, _checksum(body))
    )


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
