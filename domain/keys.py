"""API keys: 32 random bytes with a prefix and a checksum, kept as HMAC-SHA256 under the service's pepper."""

import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass

from domain.ids import new_id

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


def well_formed(text: str) -> bool:
    """Whether prefix and checksum hold, so that a typo never reaches the database."""
    body, check = text.removeprefix(PREFIX)[:-8], text[-8:]
    return (
        text.startswith(PREFIX) and len(body) == 64 and text.isascii() and hmac.compare_digest(check, _checksum(body))
    )


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
