"""The checked rows of a file: Parquet with the columns `text` and `label`, a place in the file's public labels."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from domain.blobs import Store, open_blob

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int32())])
BATCH = 8192
"""Rows held at a time while a file is written or streamed."""


@dataclass(frozen=True)
class Rows:
    """All rows of a file, in order."""

    texts: list[str]
    labels: list[int]


class RowWriter:
    """Writes rows in batches, so that memory does not grow with the file."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA)
        self._texts: list[str] = []
        self._labels: list[int] = []
        self.count = 0

    def add(self, text: str, label: int) -> None:
        self._texts.append(text)
        self._labels.append(label)
        self.count += 1
        if len(self._texts) == BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.table([self._texts, self._labels], schema=SCHEMA))
        self._texts, self._labels = [], []


def read_rows(store: Store, blob: str) -> Rows:
    """All rows of a file. Raises FileNotFoundError when the blob is gone."""
    with open_blob(store, blob) as source:
        table = pq.read_table(source, schema=SCHEMA)
    return Rows(table.column("text").to_pylist(), table.column("label").to_pylist())


def stream_jsonl(store: Store, blob: str, labels: Sequence[str]) -> Iterator[bytes]:
    """The rows as JSON Lines with the keys `text` and `label`, in pieces."""
    with open_blob(store, blob) as source, pq.ParquetFile(source) as parquet:
        for batch in parquet.iter_batches(BATCH):
            rows = ({"text": row["text"], "label": labels[row["label"]]} for row in batch.to_pylist())
            yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
