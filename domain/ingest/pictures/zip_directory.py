"""How many entries an archive lists, counted without making anything of them: a million would be a gigabyte."""

import struct
from typing import IO

MOST_ENTRIES = 2**18
"""Files and folders of an archive, those included that are passed over."""
MOST_DIRECTORY = 2**26
"""Bytes of the list."""
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = 46
_NAMES = struct.Struct("<3H")
"""Of an entry: bytes of its name, of further fields and of its comment, from byte 28 on."""
_LONGEST_COMMENT = 2**16


class NoArchive(ValueError):
    """A file without the list of entries that an archive ends with."""


class TooManyEntries(ValueError):
    """An archive that lists more than is taken."""


def count(source: IO[bytes]) -> int:
    """Entries that are listed. Raises NoArchive and TooManyEntries."""
    try:
        size, end = _directory(source)
    except (struct.error, OSError):
        raise NoArchive from None
    if size > MOST_DIRECTORY:
        raise TooManyEntries
    if size > end:
        raise NoArchive
    source.seek(end - size)
    listed = source.read(size)
    place = found = 0
    while place + _ENTRY <= size:
        found += 1
        if found > MOST_ENTRIES:
            raise TooManyEntries
        place += _ENTRY + sum(_NAMES.unpack_from(listed, place + 28))
    return found


def _directory(source: IO[bytes]) -> tuple[int, int]:
    """Bytes of the list, and where it ends."""
    length = source.seek(0, 2)
    begin = max(0, length - _LONGEST_COMMENT - _END.size)
    source.seek(begin)
    last = source.read()
    place = len(last) - _END.size
    if place < 0 or not last.startswith(b"PK\x05\x06", place) or last[-2:] != b"\0\0":
        place = last.rfind(b"PK\x05\x06", 0, len(last) - _END.size + 4)
    if place < 0:
        raise NoArchive
    size, end = int(_END.unpack_from(last, place)[5]), begin + place
    if end >= _LOCATOR.size + _END64.size:
        source.seek(end - _LOCATOR.size - _END64.size)
        wide, locator = source.read(_END64.size), source.read(_LOCATOR.size)
        if locator.startswith(b"PK\x06\x07") and wide.startswith(b"PK\x06\x06"):
            return int(_END64.unpack(wide)[8]), end - _LOCATOR.size - _END64.size
    return size, end
