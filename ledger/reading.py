"""Values out of rows that anybody may have written: nothing here raises, and what cannot be read is None.

Columns are asked for as text and their shape is checked here. A superuser can write arrays of two dimensions, with
other bounds or with NULL among their elements, numbers that are none, JSON deeper than Python reads, endless times.
"""

import json
import re
from decimal import Decimal
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from dpcore.terms.accounting import Curve

MOST_ORDERS = 64
_WHOLE = re.compile(r"-?\d{1,40}", re.ASCII)
_LIST = re.compile(r"\{-?\d{1,40}(,-?\d{1,40})*\}", re.ASCII)
_DECIMAL = re.compile(r"\s*[-+]?\d{1,400}(\.\d{0,16400})?([eE][-+]?\d{1,4})?\s*", re.ASCII)


def whole(text: str | None) -> int | None:
    """An integer."""
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def exact(text: str | None) -> Decimal | None:
    """A finite number of a size that a limit or a delta may have."""
    return Decimal(text.strip()) if text is not None and _DECIMAL.fullmatch(text) else None


def curve(text: str | None, length: int) -> Curve | None:
    """An array of one dimension, counted from 1, of this many integers."""
    if text is None or not _LIST.fullmatch(text):
        return None
    found = tuple(map(int, text[1:-1].split(",")))
    return found if len(found) == length else None


def orders(text: str | None) -> Curve:
    """A budget's or a mechanism's Renyi orders; none where they cannot be such a list."""
    found = () if text is None or not _LIST.fullmatch(text) else tuple(map(int, text[1:-1].split(",")))
    rising = all(a < b for a, b in pairwise((1, *found)))
    return found if rising and len(found) <= MOST_ORDERS else ()


def flag(text: str | None) -> bool | None:
    """A truth value."""
    return {"true": True, "false": False}.get(text or "")


def structure(text: str | None) -> Any:
    """JSON, if Python reads it: not too deep, no numbers of thousands of digits."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def columns(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """All columns under their names as values that a driver cannot fail to load: bytes in hexadecimal, times in seconds
    since 1970 (infinite where the time is), floats, and everything else as the server writes it."""
    return [_loadable(column).label(column.name) for column in table.c]


def _loadable(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    if isinstance(column.type, sa.LargeBinary):
        return sa.func.encode(column, "hex")
    if isinstance(column.type, sa.DateTime):
        return sa.cast(sa.extract("epoch", column), sa.Double)
    return column if isinstance(column.type, sa.Double) else sa.cast(column, sa.Text)
