"""What makes two texts, or two users, the same: keyed hashes.

Records are recognised by each of their texts alone, so that neither task nor format nor file matters (`text_mark`).
What repeats within a file is what has all texts the same (`fingerprint`), and so records were known altogether before
there were marks of texts.
"""

import hmac
import unicodedata
from collections.abc import Sequence
from typing import Literal

from domain.ingest.normal import normal

FingerprintKind = Literal["record", "user"]
SIZE = 32
"""Bytes of a fingerprint."""
SEPARATOR = "\x1f"
PICTURE = "\0picture "
"""What a picture's name among texts begins with: no text may hold NUL."""


def tenant_key(key: bytes, tenant_id: str) -> bytes:
    """A tenant's own key, so that fingerprints of two tenants cannot be compared."""
    return hmac.digest(key, b"tacit.fingerprint.v1:" + tenant_id.encode(), "sha256")


def normalise(text: str) -> str:
    """Unicode's canonical caseless form in NFC, every run of white space one blank, none at the ends.

    Case is folded because lower-casing a dataset is a usual way to prepare it, and because of one user who writes an
    id in two ways it is safer to make one than two. What is trained on keeps its case.
    """
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()).split())


def fingerprint(texts: Sequence[str], key: bytes, kind: FingerprintKind = "record") -> bytes:
    """HMAC-SHA256 of the kind and the normalised texts of all columns, 32 bytes. The key is a tenant's.

    The separator is white space to `normalise`, so that no text can hold one.
    """
    return hmac.digest(key, kind.encode() + b"\0" + SEPARATOR.join(map(normalise, texts)).encode(), "sha256")


def form_of(text: str) -> str:
    """What of a text decides which it is; never that of a text of which nothing is left, which is known by its
    bytes, nor that of a picture, which is known by its pixels."""
    if text.startswith(PICTURE):
        return f"p{text.removeprefix(PICTURE)}"
    return f"t{form}" if (form := normal(text)) else f"b{text}"


def text_mark(forms: Sequence[str], key: bytes) -> bytes:
    """HMAC-SHA256 of the form of one text of a record, or of those of all its texts, 32 bytes. The key is a
    tenant's."""
    return hmac.digest(key, b"text.v2\0" + SEPARATOR.join(forms).encode(), "sha256")
