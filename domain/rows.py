"""The checked rows of a file: Parquet with the columns `text`, `label`, a place in the file's public labels, and, under
a budget whose unit is the user, `user`: the rows of one user have one number, from 0."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from domain.blobs import Store, open_blob

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int32())])
USER_SCHEMA = SCHEMA.append(pa.field("user", pa.int32()))
BATCH = 8192
"""Rows held at a time while a file is written or streamed."""


@dataclass(frozen=True)
class Rows:
    """All rows of a file, in order."""

    texts: list[str]
    labels: list[int]
    users: list[int] | None = None
    """Whose each row is, where the unit is the user."""


class RowWriter:
    """Writes rows in batches, so that memory does not grow with the file."""

    def __init__(self, path: Path, *, users: bool = False) -> None:
        self._schema = USER_SCHEMA if users else SCHEMA
        self._writer = pq.ParquetWriter(path, self._schema)
        self._columns: list[list[Any]] = [[] for _ in self._schema]
        self.count = 0

    def add(self, text: str, label: int, user: int | None = None) -> None:
        for column, value in zip(self._columns, (text, label, user), strict=False):
            column.append(value)
        self.count += 1
        if len(self._columns[0]) == BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.table(self._columns, schema=self._schema))
        self._columns = [[] for _ in self._schema]


def read_rows(store: Store, blob: str) -> Rows:
    """All rows of a file. Raises FileNotFoundError when the blob is gone."""
    with open_blob(store, blob) as source:
        table = pq.ParquetFile(source).read()
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Rows(columns["text"], columns["label"], columns.get("user"))


def stream_jsonl(store: Store, blob: str, labels: Sequence[str]) -> Iterator[bytes]:
    """The rows as JSON Lines with the keys `text` and `label`, in pieces."""
    with open_blob(store, blob) as source, pq.ParquetFile(source) as parquet:
        for batch in parquet.iter_batches(BATCH):
            rows = ({"text": row["text"], "label": labels[row["label"]]} for row in batch.to_pylist())
            yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
