"""Pictures in a column of a Parquet file: bytes, or Hugging Face's struct of bytes and a path."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from domain.ingest.pictures.bad import BadPicture, too_many_bytes
from domain.ingest.pictures.bounds import MOST_BYTES
from domain.ingest.values import label_of

MOST_NAMES = 1000


def holds_pictures(type: pa.DataType) -> bool:
    """Whether it is bytes, or a struct that has them as `bytes`."""
    if pa.types.is_struct(type):
        return type.get_field_index("bytes") >= 0 and _may_be_bytes(type.field("bytes").type)
    return _is_bytes(type)


def pictures_of(column: pa.Array) -> list[bytes | BadPicture]:
    """The bytes of each row, or what is wrong with it; no more is copied than a picture may have."""
    if not pa.types.is_struct(column.type):
        return [_bytes(value, "there is none") for value in column]
    fields = dict(zip([field.name for field in column.type], column.flatten(), strict=True))
    paths = fields.get("path", pa.nulls(len(column)))
    told = ("there is only a path: put the bytes into the file", "there is none")
    return [_bytes(value, told[not path.is_valid]) for value, path in zip(fields["bytes"], paths, strict=True)]


def class_names(schema: pa.Schema, label: str | None, wanted: Collection[str] | None) -> Sequence[str] | None:
    """What Hugging Face's description of a file calls the numbers of its classes, if it does; `wanted`: the public
    labels, which may be the numbers themselves."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = told["names"] if told["_type"] == "ClassLabel" else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(names, list) or not 0 < len(names) <= MOST_NAMES or any(label_of(n) != n for n in names):
        return None
    if len(set(names)) < len(names) or (wanted is not None and set(names).isdisjoint(wanted)):
        return None
    return names


def named(value: Any, names: Sequence[str]) -> Any:
    """The name of a class by its number; None where the number stands for none, as -1 does."""
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else None
    return value


def _bytes(value: pa.Scalar, without: str) -> bytes | BadPicture:
    buffer = value.as_buffer() if value.is_valid else None
    if buffer is None or buffer.size == 0:
        return BadPicture("no_picture", f"no picture's bytes are in the row: {without}")
    return too_many_bytes() if buffer.size > MOST_BYTES else buffer.to_pybytes()


def _may_be_bytes(type: pa.DataType) -> bool:
    return _is_bytes(type) or bool(pa.types.is_null(type))  # where no row has any


def _is_bytes(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type))
