"""The checked rows of a file: Parquet with `text` (string) and `label` (int32, index into the public labels)."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from domain.blobs import Store, get_bytes


@dataclass(frozen=True)
class Rows:
    """Rows side by side: texts and labels are of one length."""

    texts: list[str]
    labels: list[int]


def read_rows(store: Store, blob: str) -> Rows:
    """Read all rows into memory."""
    table = pq.read_table(pa.BufferReader(get_bytes(store, blob)), columns=["text", "label"])
    return Rows(table.column("text").to_pylist(), table.column("label").to_pylist())
