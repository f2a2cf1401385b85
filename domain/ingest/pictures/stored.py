"""Pictures of rows that were kept, to be recognised again."""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow.parquet as pq

from domain.ingest.pictures.bounds import AT_ONCE
from domain.ingest.pictures.picture import Stored
from dpcore.terms.kind import PIXELS


def rows(source: IO[bytes], columns: tuple[str, ...], picture: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Each row's number, from 1, and its values in the order of `columns`."""
    file = pq.ParquetFile(source, buffer_size=2**16, pre_buffer=False)
    number = 0
    for batch in file.iter_batches(AT_ONCE, columns=[*columns, PIXELS], use_threads=False):
        for row in batch.to_pylist():
            number += 1
            row[picture] = Stored(row[picture], row[PIXELS])
            yield number, tuple(row[column] for column in columns)
