"""Keyset pages in OpenAI's shape: scoped first, then the cursor, then one row more to know if there are more."""

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import sqlalchemy as sa
from fastapi import Query
from pydantic import BaseModel

from domain.kit.refusals import Invalid

Item = TypeVar("Item", bound=BaseModel)

After = Annotated[str | None, Query(description="the id of the last item of the page before", max_length=200)]
PageSize = Annotated[int, Query(ge=1, le=100, description="most items in the page")]
Order = Annotated[Literal["asc", "desc"], Query(description="by time of creation")]


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page(items: Sequence[Item], has_more: bool) -> Page[Item]:
    """Items of the caller, as a page."""
    ids = [item.model_dump(include={"id"})["id"] for item in items]
    return Page(data=list(items), first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=has_more)


def fetch(
    connection: sa.Connection,
    scoped: sa.Select[Any],
    table: sa.FromClause,
    *,
    after: str | None,
    limit: int,
    order: str = "desc",
    left: sa.Select[Any] | None = None,
) -> tuple[Sequence[sa.Row[Any]], bool]:
    """Rows by (created_at, id) from a statement that holds only what the caller may see. `left`: the same with what has
    been deleted, which a cursor may still name, so that whoever deletes what is listed comes to the end. Raises
    Invalid."""
    key = sa.tuple_(table.c.created_at, table.c.id)
    if after is not None:
        plain = after.isascii() and after.isprintable()
        known = scoped if left is None else left
        at = connection.execute(known.where(table.c.id == after)).one_or_none() if plain else None
        if at is None:
            raise unknown_cursor()
        cursor = sa.tuple_(sa.literal(at.created_at), sa.literal(at.id))
        scoped = scoped.where(key > cursor if order == "asc" else key < cursor)
    columns = (table.c.created_at, table.c.id)
    ordered = scoped.order_by(*(c.asc() if order == "asc" else c.desc() for c in columns))
    return _cut(connection, ordered, limit)


def fetch_numbered(
    connection: sa.Connection,
    scoped: sa.Select[Any],
    number: sa.ColumnElement[int],
    *,
    prefix: str,
    after: str | None,
    limit: int,
    order: str,
) -> tuple[Sequence[sa.Row[Any]], bool]:
    """Rows of one parent by their number within it; a cursor is `<prefix><number>`. Raises Invalid."""
    if after is not None:
        digits = after.removeprefix(prefix)
        if not (after.startswith(prefix) and digits.isascii() and digits.isdecimal() and len(digits) < 16):
            raise unknown_cursor()
        scoped = scoped.where(number > int(digits) if order == "asc" else number < int(digits))
    return _cut(connection, scoped.order_by(number.asc() if order == "asc" else number.desc()), limit)


def unknown_cursor() -> Invalid:
    """The same words for a cursor that is foreign or made up."""
    return Invalid("no item of this list has that id", code="unknown_cursor", param="after")


def _cut(connection: sa.Connection, ordered: sa.Select[Any], limit: int) -> tuple[Sequence[sa.Row[Any]], bool]:
    rows = connection.execute(ordered.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
