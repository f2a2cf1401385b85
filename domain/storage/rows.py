"""The checked rows of a file: Parquet with the text columns of the file's task, a conversation as its canonical JSON
text; `label`, a place in its public labels, where the task has labels; and, under a budget whose unit is the user,
`user`: the rows of one user have one number, from 0; of a private file `lot`, by which its unit is held out of training
or not; and of a picture `pixels`, what it was known by before it was scaled."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

from domain.storage.blobs import as_file
from domain.storage.sealing import Sealed
from dpcore.terms.kind import LABEL, LOT, PIXELS, USER
from dpcore.terms.tasks import COLUMNS, DEFAULT_KIND, TaskKind, get_kind

BATCH = 8192
"""Rows held at a time while a file is written."""
SENT = 64
"""Rows held at a time while a file is streamed: each may have a mebibyte."""
PAGE = 2**18
"""Bytes after which a page ends."""
BATCH_CHARACTERS = 2**22
"""Characters held at a time while a file is written, and, since they are a row group then, while it is read."""


_NO_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""Line ends to many readers of lines, Python's among them, though not to JSON."""


class StoredColumn(Sequence[str]):
    """A column whose values are large, as pictures are: each is made when it is asked for."""

    def __init__(self, values: pa.ChunkedArray, places: Sequence[int] | None = None) -> None:
        self._values, self._places = values, range(len(values)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "StoredColumn": ...
    def __getitem__(self, place: int | slice) -> "str | StoredColumn":
        if isinstance(place, slice):
            return StoredColumn(self._values, self._places[place])
        value: str = self._values[self._places[place]].as_py()
        return value

    def at(self, places: Sequence[int]) -> "StoredColumn":
        """Those in these places, in this order."""
        return StoredColumn(self._values, [self._places[i] for i in places])


@dataclass(frozen=True)
class FileRows:
    """All rows of a file, in order."""

    columns: dict[str, Sequence[str]]
    """The text columns of the task."""
    labels: list[int] | None = None
    """Places in the public labels, where the task has labels."""
    users: list[int] | None = None
    """Whose each row is, where the unit is the user."""
    lots: list[int] | None = field(default=None, compare=False)
    """The lot of each row's unit, below 2^64; None of a public file, and of one of a version that held nothing out."""


class RowWriter:
    """Writes rows in batches, so that memory does not grow with the file."""

    def __init__(self, path: Path, task: TaskKind = DEFAULT_KIND, *, users: bool = False, lots: bool = False) -> None:
        kind = get_kind(task)
        fields = [pa.field(name, pa.string()) for name in (*kind.texts, *([PIXELS] if kind.of_pictures else []))]
        fields += [pa.field(LABEL, pa.int32())] if kind.labelled else []
        fields += [pa.field(USER, pa.int32())] if users else []
        fields += [pa.field(LOT, pa.uint64())] if lots else []
        self._schema = pa.schema(fields)
        self._texts = len(kind.texts) + kind.of_pictures
        # Texts differ, so a dictionary of them is a second copy; small pages are what a reader holds beside its rows.
        self._writer = pq.ParquetWriter(
            path, self._schema, use_dictionary=False, write_batch_size=SENT, data_page_size=PAGE
        )
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0
        self.count = 0

    def add(
        self, texts: Sequence[str], label: int | None = None, user: int | None = None, lot: int | None = None
    ) -> None:
        """One row: its text columns in their order, behind a picture what it is known by, if anything; and a label, a
        user and a lot where the file has them."""
        unknown = (None,) * (self._texts - len(texts))
        self._rows.append((*texts, *unknown, *(value for value in (label, user, lot) if value is not None)))
        self._characters += sum(map(len, texts))
        self.count += 1
        if len(self._rows) == BATCH or self._characters > BATCH_CHARACTERS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [() for _ in self._schema]
        self._writer.write_table(pa.table([list(column) for column in columns], schema=self._schema))
        self._rows, self._characters = [], 0


def drop_rows(path: Path, dropped: bytearray) -> None:
    """Remove the rows with a 1 in `dropped` from a file of RowWriter; a row group at a time is in memory."""
    with tempfile.TemporaryFile(dir=path.parent) as kept:
        with pq.ParquetFile(path) as source, pq.ParquetWriter(kept, source.schema_arrow) as writer:
            place = 0
            for number in range(source.num_row_groups):
                group = source.read_row_group(number)
                keep = [not drop for drop in dropped[place : place + group.num_rows]]
                writer.write_table(group.filter(pa.array(keep, pa.bool_())))
                place += group.num_rows
        kept.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(kept, target)


def read_rows(blob: Sealed) -> FileRows:
    """All rows of a file. Raises FileNotFoundError when the blob is gone."""
    with as_file(blob) as source:
        return parse_rows(source)


def parse_rows(source: IO[bytes] | Path) -> FileRows:
    """All rows of a Parquet file as RowWriter writes it."""
    table = pq.ParquetFile(source).read()
    large = {name for name in table.column_names if name in COLUMNS and COLUMNS[name].picture}
    found = {name: table.column(name).to_pylist() for name in table.column_names if name not in {*large, PIXELS}}
    labels, users, lots = (found.pop(name, None) for name in (LABEL, USER, LOT))
    columns: dict[str, Sequence[str]] = found | {name: StoredColumn(table.column(name)) for name in large}
    return FileRows(columns, labels, users, lots)


def stream_jsonl(blob: Sealed, labels: Sequence[str] | None) -> Iterator[bytes]:
    """The rows as JSON Lines in pieces, with the columns of the task and the label as keys; conversations are lists."""
    with as_file(blob) as source, pq.ParquetFile(source, buffer_size=2**16, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(SENT, use_threads=False):
            lines = (json.dumps(_as_uploaded(row, labels or ()), ensure_ascii=False) for row in batch.to_pylist())
            yield "".join(line.translate(_NO_LINE_ENDS) + "\n" for line in lines).encode()


def _as_uploaded(row: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    row.pop(USER, None)
    row.pop(LOT, None)
    row.pop(PIXELS, None)
    if LABEL in row:
        row[LABEL] = labels[row[LABEL]]
    conversations = (name for name in row if name in COLUMNS and COLUMNS[name].conversation)
    return row | {name: json.loads(row[name]) for name in conversations}
