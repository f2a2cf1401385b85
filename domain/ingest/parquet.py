"""Parquet that nobody vouches for: read row by row in small batches, and given up when it unfolds into too much.

What the file says about its own size proves nothing: five megabytes can unfold into fifty gigabytes.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from domain.ingest.columns import LOOKED, FileColumns
from domain.ingest.lines import LONGEST
from domain.ingest.looks import way_out
from domain.ingest.pictures.bounds import AT_ONCE
from domain.ingest.pictures.tables import class_names, holds_pictures, named, pictures_of
from domain.ingest.problems import Problems

BATCH = 64
"""Rows decoded at a time."""
MOST_ROWS = 20_000_000
MOST_CHARACTERS = 4 * 2**30
"""Of the columns asked for, all rows together."""
MOST_NESTED = 4
"""Lists and structs within a message."""
PICTURES = "image"
"""The column of pictures in most files of them."""
_OTHER_NAME = "; for another name send columns[...]"
MOST_NOTICED = 2**30
"""Bytes that are looked at of columns that nobody asked for."""


def rows(
    source: IO[bytes],
    columns: tuple[str, ...],
    problems: Problems,
    numbers: frozenset[str] = frozenset(),
    label: str | None = None,
    picture: str | None = None,
    labels: Collection[str] | None = None,
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Each row's number, from 1, and its values in the order of `columns`; what cannot be read is noted. `numbers`: the
    columns that may be of floats and decimals too; `label`: the one whose floats are what a text file would have of
    them, while all others are exact; `picture`: the one of pictures, if any, which are bytes or a BadPicture, and
    `labels` the public ones of such a file."""
    number = 0
    try:
        # Extension types would run whatever code is registered for them: they stay what they are stored as.
        file = pq.ParquetFile(source, buffer_size=2**16, pre_buffer=False, arrow_extensions_enabled=False)
        if not _readable(file, columns, problems, numbers, picture):
            return
        names = None if picture is None else class_names(file.schema_arrow, label, labels)
        size = 0
        at_once = AT_ONCE if picture in columns else BATCH
        for batch in file.iter_batches(at_once, columns=list(columns), use_threads=False):
            for values in _values(batch.select(columns), _Reading(label, picture, names)):
                number += 1
                length = _length(values) if values else 0
                size += length
                if number > MOST_ROWS or size > MOST_CHARACTERS:
                    most = f"{MOST_ROWS} rows or {MOST_CHARACTERS} {'bytes' if picture else 'characters'}"
                    problems.note(number, "too_large", f"the file unfolds into more than {most}")
                    return
                if values is None:
                    problems.note(number, "not_utf8", "the row is not UTF-8: write it as text")
                elif length > LONGEST and picture not in columns:
                    problems.note(number, "row_too_long", f"the row is longer than {LONGEST} characters")
                else:
                    yield number, values
    except (pa.ArrowException, OSError):
        problems.note(number or None, "not_parquet", "the file, or what follows this row, cannot be read as Parquet")


def notice(source: IO[bytes], columns: FileColumns) -> None:
    """Tell what the file's other columns are called and hold. What cannot be read of them is told no further: nobody
    needs it."""
    source.seek(0)
    with contextlib.suppress(pa.ArrowException, OSError, MemoryError, ValueError):
        file = pq.ParquetFile(source, buffer_size=2**16, pre_buffer=False, arrow_extensions_enabled=False)
        schema = file.schema_arrow
        names = [name for name in schema.names if len(schema.get_all_field_indices(name)) == 1]
        columns.header(names)
        followed = [name for name in columns.followed if _plain(schema.field(name).type)]
        seen = _notice(file, followed, columns, 0, LOOKED + BATCH)
        followed = [name for name in followed if name in columns.followed]
        _notice(file, followed, columns, seen, MOST_ROWS)


def _notice(file: pq.ParquetFile, names: list[str], columns: FileColumns, begin: int, end: int) -> int:
    """Tell the values of rows from `begin` on, to about `end`; answers where it ended."""
    if not names:
        return begin
    columns.header(names)
    number: int = 0
    size = 0
    for batch in file.iter_batches(BATCH, columns=names, use_threads=False):
        if number >= begin:
            size += batch.nbytes
            if number >= end or size > MOST_NOTICED:
                break
            for values in zip(*(column.to_pylist() for column in batch.select(names).columns), strict=True):
                columns.fields(values)
        number += batch.num_rows
    return number


def _plain(type: pa.DataType) -> bool:
    return _is_text(type) or bool(pa.types.is_integer(type) or pa.types.is_floating(type))


@dataclass(frozen=True)
class _Reading:
    """How the values of columns are to be read: that of labels, that of pictures, and the names of classes that are
    numbers."""

    label: str | None
    picture: str | None
    names: Sequence[str] | None


def _readable(
    file: pq.ParquetFile, columns: tuple[str, ...], problems: Problems, numbers: frozenset[str], picture: str | None
) -> bool:
    schema = file.schema_arrow
    before = problems.count
    if file.metadata.num_rows > MOST_ROWS:
        problems.note(None, "too_large", f"the file has more than {MOST_ROWS} rows")
    for column in columns:
        places = schema.get_all_field_indices(column)
        if len(places) != 1:
            way = _way_of_pictures(schema, picture) or way_out(schema.names, columns) or _OTHER_NAME
            message = f"the file has no column '{column}', or several{way}"
            problems.note(None, "missing_column", message)
        elif column == picture:
            if not holds_pictures(schema.field(places[0]).type):
                message = f"the column '{column}' holds no pictures: write their bytes, or structs of bytes and path"
                problems.note(None, "bad_type", message)
        elif not _allowed(schema.field(places[0]), number=column in numbers):
            message = (
                f"the column '{column}' is neither text nor whole numbers, nor a list of structs of role and content: "
                "write it as text"
            )
            problems.note(None, "bad_type", message)
    return problems.count == before


def _way_of_pictures(schema: pa.Schema, picture: str | None) -> str:
    """What to send for a file whose columns are called otherwise, where it may be of pictures."""
    alone = picture is None and schema.get_field_index(PICTURES) >= 0
    if alone and holds_pictures(schema.field(PICTURES).type):
        return f"; with pictures in '{PICTURES}' send task=image"
    return ""


def _allowed(field: pa.Field, *, number: bool) -> bool:
    """Whether it is text, whole numbers, a number where one may stand, or a list of structs, which a conversation may
    be, and no extension in disguise."""
    if b"ARROW:extension:name" in (field.metadata or {}):
        return False
    type = field.type
    if _is_list(type):
        return pa.types.is_struct(type.value_type) and _nests(type.value_type, MOST_NESTED)
    if number and (pa.types.is_floating(type) or pa.types.is_decimal(type)):
        return True
    return _is_text(type) or pa.types.is_integer(type)


def _nests(type: pa.DataType, deep: int) -> bool:
    """Whether it is plain, or made of plain ones so deep: what a message and its parts may have beside their texts,
    mostly nothing."""
    if deep and pa.types.is_struct(type):
        return all(_nests(part.type, deep - 1) for part in type)
    if deep and _is_list(type):
        return _nests(type.value_type, deep - 1)
    return _plain(type) or bool(pa.types.is_null(type) or pa.types.is_boolean(type))


def _is_list(type: pa.DataType) -> bool:
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type))


def _is_text(type: pa.DataType) -> bool:
    """Bytes count as text, as which some programs write it; what is no UTF-8 is a problem of its row."""
    values = type.value_type if pa.types.is_dictionary(type) else type
    return bool(
        pa.types.is_string(values)
        or pa.types.is_large_string(values)
        or pa.types.is_string_view(values)
        or pa.types.is_binary(values)
        or pa.types.is_large_binary(values)
        or pa.types.is_binary_view(values)
    )


def _values(batch: pa.RecordBatch, how: _Reading) -> Iterable[tuple[Any, ...] | None]:
    """The rows of a batch; None for one that is not UTF-8."""
    try:
        columns = zip(batch.schema.names, batch.columns, strict=True)
        return zip(*(_column(name, column, how) for name, column in columns), strict=True)
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return chain.from_iterable(_values(batch.slice(place, 1), how) for place in range(batch.num_rows))


def _column(name: str, column: pa.Array, how: _Reading) -> list[Any]:
    if name == how.picture:
        return list(pictures_of(column))
    values = _as_written(column, few_digits=name == how.label)
    return values if name != how.label or how.names is None else [named(value, how.names) for value in values]


def _as_written(column: pa.Array, *, few_digits: bool) -> list[Any]:
    """Values as a text file would have them: bytes as the text that they are, and floats of 32 bits, with `few_digits`,
    in those that tell them apart. Raises UnicodeDecodeError."""
    if few_digits and pa.types.is_floating(column.type) and column.type.bit_width <= 32:
        digits = column.cast(pa.float32()).cast(pa.string()).to_pylist()
        return [None if one is None else float(one) for one in digits]
    return [value.decode() if isinstance(value, bytes) else value for value in column.to_pylist()]


def _length(values: tuple[Any, ...]) -> int:
    return sum(len(value) if isinstance(value, bytes) else len(str(value)) for value in values)
