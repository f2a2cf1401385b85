"""What makes two records the same: a keyed hash of the text, without its label."""

import hashlib
import hmac
import unicodedata


def tenant_key(key: bytes, tenant_id: str) -> bytes:
    """A tenant's own key, so that fingerprints of two tenants cannot be compared."""
    return hmac.digest(key, b"tacit.fingerprint.v1:" + tenant_id.encode(), "sha256")


def normalise(text: str) -> str:
    """NFC, with every run of white space folded into one blank and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fingerprint(text: str, key: bytes) -> bytes:
    """HMAC-SHA256 of the normalised text, 32 bytes. The key is a tenant's."""
    return hmac.digest(key, normalise(text).encode(), hashlib.sha256)
