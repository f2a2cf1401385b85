"""What a check notices of columns that jobs do not learn from: their names, and how often their values repeat.

Values that are followed are kept as salted 64-bit hashes on the disk, so that memory does not grow with the file.
"""

import re
import tempfile
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from domain.ingest.person_names import names_people

MOST_NAMES = 100
"""Columns whose names are remembered."""
MOST_FOLLOWED = 40
"""Columns whose values are followed: each has a file of its own."""
LOOKED = 1000
"""Values by which it is told whether a column holds ids."""
HELD = 8192
"""Hashes of a column in memory."""
COUNTED = 2**22
"""Different values that are counted at a time, about."""
MISSING = frozenset(["", "null", "none", "nan", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "\\n", "-", "?", "nil"])
"""Writings of no value, in small letters."""
LONGEST_ID = 64
FEW_WORDS = 3
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([ t]\d.*)?|\d{1,2}:\d\d(:\d\d.*)?")
_FRACTION = re.compile(r"[-+]?\d*[.,]\d+(e[-+]?\d+)?%?")


@dataclass(frozen=True)
class HeldColumn:
    """What a column that is not used held in the first records."""

    name: str
    values: int
    """Records that have one."""
    texts: int
    """Of them, with more than a few words."""
    looked: int


@dataclass(frozen=True)
class Followed:
    """How the values of a column repeat. Missing ones do not count."""

    name: str
    declared: bool
    """Whether it was named as the column of users."""
    by_name: bool
    """Whether its name says that its values are people."""
    like_ids: bool
    values: int
    distinct: int
    most: int
    """Records that have the most frequent value."""


class FileColumns:
    """All columns of a file. `used`: those that jobs learn from; `user`: that of the users, if it was named."""

    def __init__(self, folder: Path, used: Collection[str], user: str | None, *, follow: bool) -> None:
        self._folder, self._user, self._follow = folder, user, follow
        self._known = set(used)
        self._columns: dict[str, _Column] = {}
        self._places: list[tuple[int, _Column]] = []
        self._rows = 0
        self.empty_classes = 0
        """Folders of a zip that would be classes, without a picture."""
        self.unused: list[str] = []
        """Names, in the order of the file."""

    @property
    def names(self) -> set[str]:
        """All that are remembered."""
        return set(self._known)

    @property
    def followed(self) -> list[str]:
        """The columns whose values may still tell something."""
        return [name for name, column in self._columns.items() if column.hopeful]

    def header(self, names: Sequence[str]) -> None:
        """The columns of a file that has the same in each record."""
        for name in names:
            self._meet(name)
        found = [(place, self._columns[name]) for place, name in enumerate(names) if name in self._columns]
        self._places = [(place, column) for place, column in found if column.hopeful]

    def fields(self, row: Sequence[Any]) -> None:
        """A record, in the order of the header."""
        for place, column in self._places:
            column.add(row[place])
        self._rows += 1
        if self._rows % HELD == 0:
            self._places = [(place, column) for place, column in self._places if column.hopeful]

    def named(self, record: Mapping[str, Any]) -> None:
        """A record that names its columns itself."""
        if len(self.unused) < MOST_NAMES and (new := record.keys() - self._known):
            for name in [name for name in record if name in new]:
                self._meet(name)
        for name, column in self._columns.items():
            if name in record and column.hopeful:
                column.add(record[name])

    def count(self) -> list[Followed]:
        """What came of the columns that were followed; once."""
        return [column.count() for column in self._columns.values() if self._follow and column.may_be_people]

    def held(self) -> list[HeldColumn]:
        """What those held that are not used, in the order of the file."""
        return [column.held() for name, column in self._columns.items() if name != self._user]

    def _meet(self, name: str) -> None:
        if name in self._known or len(self.unused) == MOST_NAMES:
            return
        self._known.add(name)
        if name != self._user:
            self.unused.append(name)
        if len(self._columns) < MOST_FOLLOWED:
            self._columns[name] = _Column(self._folder, name, declared=name == self._user, follow=self._follow)


class _Column:
    def __init__(self, folder: Path, name: str, *, declared: bool, follow: bool) -> None:
        self._folder, self._name, self._declared, self._by_name = folder, name, declared, names_people(name)
        self._follow = follow
        self._seen = self._present = self._texts = 0
        self._file: IO[bytes] | None = None
        self._hashes = array("q")
        self._values = 0
        self._looked = self._ids = 0

    @property
    def hopeful(self) -> bool:
        """Whether its values may still tell something."""
        return self._seen < LOOKED or (self._follow and self.may_be_people)

    @property
    def may_be_people(self) -> bool:
        return self._declared or self._by_name or self._looked < LOOKED or self._like_ids

    @property
    def _like_ids(self) -> bool:
        return self._ids * 10 >= self._looked * 9 > 0

    def add(self, value: Any) -> None:
        """The value of the next record."""
        if self._seen < LOOKED:
            self._look(value)
        if not self._follow:
            return
        if isinstance(value, str):
            value = value.strip().casefold()
            if value in MISSING:
                return
        elif isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return
        if self._looked < LOOKED:
            self._looked += 1
            self._ids += _like_an_id(value)
        self._hashes.append(hash(value))
        if len(self._hashes) == HELD:
            self._flush()

    def count(self) -> Followed:
        self._flush()
        distinct, most = (0, 0) if self._file is None else _counted(self._file, self._values)
        told = self._declared, self._by_name, self._like_ids
        return Followed(self._name, *told, self._values, distinct, most)

    def held(self) -> HeldColumn:
        return HeldColumn(self._name, self._present, self._texts, self._seen)

    def _look(self, value: Any) -> None:
        self._seen += 1
        if value is None or value is False or value in ("", [], {}) or (isinstance(value, str) and _is_missing(value)):
            return
        self._present += 1
        self._texts += isinstance(value, str) and (len(value) > LONGEST_ID or value.count(" ") >= FEW_WORDS)

    def _flush(self) -> None:
        if self._hashes:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.write(self._hashes.tobytes())
            self._values += len(self._hashes)
            self._hashes = array("q")


def _is_missing(value: str) -> bool:
    return value.strip().casefold() in MISSING


def _like_an_id(value: str | float) -> bool:
    """Short, in one piece, with a digit or an @, and no small number, fraction, date or time."""
    if not isinstance(value, str):
        return value == int(value) and abs(value) >= 100 if abs(value) < 2**63 else True
    if len(value) > LONGEST_ID or (value.isdecimal() and len(value) < 3) or any(c.isspace() for c in value):
        return False
    return ("@" in value or any(c.isdigit() for c in value)) and not (
        _DATE.fullmatch(value) or _FRACTION.fullmatch(value)
    )


def _counted(hashes: IO[bytes], count: int) -> tuple[int, int]:
    """Different hashes, and how often the most frequent one occurs; in several turns where there are many."""
    turns = 1
    while turns * COUNTED < count:
        turns *= 2
    distinct = most = 0
    for turn in range(turns):
        hashes.seek(0)
        chunks = []
        while content := hashes.read(8 * HELD * 64):
            chunk = pa.Array.from_buffers(pa.int64(), len(content) // 8, [None, pa.py_buffer(content)])
            chunks.append(chunk if turns == 1 else chunk.filter(pc.equal(pc.bit_wise_and(chunk, turns - 1), turn)))
        counts = pa.chunked_array(chunks, pa.int64()).value_counts().field("counts")
        distinct += len(counts)
        most = max(most, pc.max(counts).as_py() or 0)
    hashes.close()
    return distinct, most
