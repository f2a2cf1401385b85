"""The chunks of a PNG: those that its pixels come from, and its orientation; all others never reach a decoder."""

import struct

from domain.ingest.pictures.bad import broken, moves
from domain.ingest.pictures.kinds import PNG

_PIXELS = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
_HEAD = struct.Struct(">I4s")
_AROUND = 12
"""Bytes of a chunk beside its content."""


def plain(data: bytes) -> tuple[bytes, bytes | None]:
    """The same pixels without text, profile, time or any other chunk; and what its EXIF chunk holds, if it has one.
    Raises BadPicture for one that is cut or moves."""
    kept, exif, place = [PNG], None, len(PNG)
    while place + _AROUND <= len(data):
        size, name = _HEAD.unpack_from(data, place)
        end = place + size + _AROUND
        if end > len(data):
            break
        content = data[place + 8 : end - 4] if name in (b"acTL", b"eXIf") else b""
        if name == b"acTL" and (size < 8 or content[:4] != b"\0\0\0\1"):
            raise moves()
        if name == b"eXIf" and exif is None:
            exif = content
        if name in _PIXELS:
            kept.append(data[place:end])
        if name == b"IEND":
            return b"".join(kept), exif
        place = end
    raise broken()
