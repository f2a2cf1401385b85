"""Which texts came how often and with which labels, kept on the disk until all rows are known."""

import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from domain.ingest.spool import FingerprintParts

_ENTRY = struct.Struct("<16si")
KEY = 16
"""Bytes of a fingerprint that tell it from all others in a file."""
_READ = 2**14
"""Entries read at a time: all rows of a file may have one text, and so be in one part."""


class SpooledLabels:
    """A fingerprint and the place of a label for each row, in the order of the rows."""

    def __init__(self, folder: Path) -> None:
        self._parts = FingerprintParts(folder)
        self.first: Counter[int] = Counter()
        """Labels of the first row of each text; their sum is the number of texts. All of it once `count` has run."""
        self.texts = 0
        """Texts with two labels or more."""
        self.records = 0
        """Rows that have such a text."""

    def add(self, mark: bytes, place: int) -> None:
        """The next row: what its texts are known by, and its label."""
        self._parts.add(mark, _ENTRY.pack(mark, place))

    def count(self) -> None:
        """Go through all rows, once."""
        for part in self._parts:
            first: dict[bytes, int] = {}
            torn: set[bytes] = set()
            for mark, place in _rows(part):
                if first.setdefault(mark, place) != place:
                    torn.add(mark)
            self.first.update(first.values())
            self.texts += len(torn)
            if torn:
                part.seek(0)
                self.records += sum(mark in torn for mark, _ in _rows(part))


class SpooledPairs:
    """How many different pairs of a user and a text there are."""

    def __init__(self, folder: Path) -> None:
        self._parts = FingerprintParts(folder)

    def add(self, user: bytes, record: bytes) -> None:
        """Both by their fingerprints, which are as good as random: so is the pair, and parts are of even size."""
        pair = (int.from_bytes(user[:KEY]) ^ int.from_bytes(record[:KEY])).to_bytes(KEY)
        self._parts.add(pair, pair)

    def count(self) -> int:
        """Different pairs; once."""
        return sum(len(set(iter(partial(part.read, KEY), b""))) for part in self._parts)


def _rows(part: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    while content := part.read(_ENTRY.size * _READ):
        yield from _ENTRY.iter_unpack(content)
