"""What ties a file to its rows, its budget and its public constants, whatever the database says.

Each row of `file` holds an HMAC of what it is, under a key derived from the data key of its blob. The data key is
wrapped by a master key that no database login has: whoever can write rows of `file`, and of `data_key` too, cannot make
another row that fits a blob. It is checked on the blob's header, before a row is read, at each use of a file.

The rows themselves need not be read for that. The key of their chunks is derived from the data key, the blob's name,
and the salt and size in its header; each writing draws a fresh salt of 32 bytes; numbers of chunks and the end are
authenticated (sealing.py). So what opens under this header is what was written with it, or was made by somebody who has
the data key and needs no database. Name, salt and size are among what is bound.

Rows of `file` from before there were bindings are `legacy`, and pass without one: their blob cannot be exchanged from
then on, since no column but the time of deletion ever changes.
"""

import hmac
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from obstore.exceptions import BaseError

from domain.kit.logs import type_name
from domain.kit.purposes import RESULT
from domain.kit.refusals import Conflict
from domain.storage.blobs import Store, open_blob
from domain.storage.masters import WrongKey
from domain.storage.sealing import Seal, Sealed, Tampered
from ledger.canonical import packed
from ledger.tables import budget

VERSION = "tacit.binding.v1"
logger = logging.getLogger(__name__)


class BrokenBinding(Conflict):
    """A file's row, key or blob is not what the service stored together; nothing of its rows was read."""

    def __init__(self) -> None:
        super().__init__(
            "the file cannot be used: it is not tied to the rows that are stored for it, so that somebody has changed "
            "the database or the blob store; nothing of it was read. Tell the operator",
            code="file_binding_broken",
        )


Units = Mapping[str, tuple[str, int | None]]
"""Of budgets that were read already: the unit, and the most records of a user."""


def bind(connection: sa.Connection, seal: Seal, file: Mapping[str, Any], units: Units | None = None) -> bytes:
    """The 32 bytes that tie a row of `file`, by its columns' names, to the blob that was written under this seal."""
    return seal.mac(
        VERSION.encode(), packed(fields(seal, file, *_unit(connection, file.get("budget_id"), units or {})))
    )


def fields(
    seal: Seal, file: Mapping[str, Any], unit: str | None = None, max_records_per_user: int | None = None
) -> list[str]:
    """What is bound, in its canonical order; the unit and its bound are the budget's."""
    labels = file.get("labels")
    return [
        VERSION,
        seal.name,
        seal.salt.hex(),
        str(seal.size),
        file["id"],
        file["tenant_id"],
        file["purpose"],
        "" if file["purpose"] == RESULT else file["task"],  # a result is for no task
        _text(file.get("budget_id")),
        _text(unit),
        _text(max_records_per_user),
        _text(file.get("declared_size")),
        _text(file.get("max_length")),
        "" if labels is None else str(len(labels)),
        *(labels or ()),
    ]


def open_file(connection: sa.Connection, store: Store, row: sa.Row[Any], units: Units | None = None) -> Sealed:
    """The blob of a whole row of `file`, if the two belong together: the only way to a file's rows.

    Raises BrokenBinding, FileNotFoundError when the blob or its key is gone, and what a store or a key service that is
    away raises.
    """
    if row.blob is None:
        raise FileNotFoundError(f"{row.id} has no blob")
    try:
        blob = open_blob(store, row.blob)
    except (Tampered, WrongKey) as error:
        raise _alarm(row) from error
    if not row.legacy and not hmac.compare_digest(
        row.binding or b"", bind(connection, blob.seal, row._asdict(), units)
    ):
        raise _alarm(row)
    return blob


def require_bound(
    connection: sa.Connection, store: Store, rows: Iterable[sa.Row[Any]], units: Units | None = None
) -> None:
    """Before files are used in a job; raises BrokenBinding. A store or a key service that is away stops nobody here:
    the worker checks again before it reads."""
    try:
        for row in rows:
            open_file(connection, store, row, units)
    except (BaseError, OSError) as error:
        logger.warning("the files of a job were not looked at: %s", type_name(error))


def _alarm(row: sa.Row[Any]) -> BrokenBinding:
    logger.error("ALARM: %s is not tied to the blob %s: the database or the blob store was changed", row.id, row.blob)
    return BrokenBinding()


def _unit(connection: sa.Connection, budget_id: str | None, known: Units) -> tuple[str | None, int | None]:
    """The unit of a budget, and the most records of a user."""
    if budget_id is None:
        return None, None
    if budget_id in known:
        return known[budget_id]
    wanted = sa.select(budget.c.unit, budget.c.max_records_per_user).where(budget.c.id == budget_id)
    unit, most = connection.execute(wanted).one()
    return unit, most


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)
