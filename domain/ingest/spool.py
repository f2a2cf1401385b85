"""What a check must remember of every row, kept on the disk where it is much: its memory does not grow with the file.

Whatever belongs to a fingerprint goes by the fingerprint's first byte into one of PARTS files, and one part at a time
is held in memory. Fingerprints are keyed hashes: parts are of even size whatever is in the file. The files have no
names, so that nothing is left of a check that is killed.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from domain.ingest.fingerprint import SIZE
from domain.ingest.users import RowsByUser, TextRow

PARTS = 64
NUMBER = 5
"""Bytes of a row's number."""
KEPT = 32 * 1024
"""Bytes of a part that are kept in memory: a part of a small file never becomes a file."""


class FingerprintParts:
    """Records by their fingerprints, to be read one part after the other."""

    def __init__(self, folder: Path) -> None:
        self._files = [tempfile.SpooledTemporaryFile(KEPT, dir=os.fspath(folder)) for _ in range(PARTS)]  # noqa: SIM115

    def add(self, mark: bytes, record: bytes) -> None:
        """Bytes that belong to this fingerprint."""
        self._files[mark[0] * PARTS // 256].write(record)

    def __iter__(self) -> Iterator[IO[bytes]]:
        """Each part from its beginning, in the order of fingerprints; it is gone afterwards."""
        for file in self._files:
            with file:
                file.seek(0)
                yield file


class SpooledMarks:
    """The fingerprints of all rows, in the order of the rows."""

    def __init__(self, folder: Path) -> None:
        self._parts, self._count = FingerprintParts(folder), 0

    def add(self, mark: bytes) -> None:
        """The fingerprint of the next row."""
        self._parts.add(mark, mark + self._count.to_bytes(NUMBER))
        self._count += 1

    def write(self, path: Path) -> bytearray:
        """Write each fingerprint once, sorted, one after the other; answers a byte for each row: 1 where an earlier row
        has the same fingerprint."""
        repeated = bytearray(self._count)
        with path.open("wb") as target:
            for part in self._parts:
                seen: set[bytes] = set()
                while record := part.read(SIZE + NUMBER):
                    mark = record[:SIZE]
                    if mark in seen:
                        repeated[int.from_bytes(record[SIZE:])] = 1
                    seen.add(mark)
                target.write(b"".join(sorted(seen)))
        return repeated


class SpooledUsers:
    """Rows by user: what `RowsByUser` keeps, for one part of the users after the other."""

    def __init__(self, folder: Path, most: int) -> None:
        self._parts, self._most = FingerprintParts(folder), most
        self.count = 0
        """Users, once all have been gone through."""

    def add(self, user: bytes, record: bytes, row: TextRow) -> None:
        """A row of this user; both are known by their fingerprints."""
        line = json.dumps([user.hex(), record.hex(), *row], ensure_ascii=False)
        self._parts.add(user, line.encode() + b"\n")

    def __iter__(self) -> Iterator[tuple[int, bytes, TextRow]]:
        """Users as numbers from 0, with fingerprints and each of their rows, all in the order of fingerprints; once."""
        for part in self._parts:
            rows = RowsByUser(self._most)
            for line in part:
                user, record, texts, place = json.loads(line)
                rows.add(bytes.fromhex(user), bytes.fromhex(record), (tuple(texts), place))
            for number, owner, row in rows:
                yield self.count + number, owner, row
            self.count += len(rows)
