"""The two parts of a budget's units: those that jobs train on, and those that are held out for charged measurements.

A unit's part follows from its lot and its budget alone, so that it is the same for every job and file of the budget.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import floor

from domain.storage.rows import FileRows, StoredColumn


class NoLots(ValueError):
    """Rows of a version that drew no lots cannot be parted."""


def is_held_out(lot: int, budget_id: str, share: float) -> bool:
    """Whether a unit is in the held-out part of a budget that holds this share of its units out."""
    # Two budgets of a tenant that hold one text, by a steward's decision, part it each for itself.
    drawn = hashlib.blake2b(lot.to_bytes(8), key=budget_id.encode()[:64], person=b"tacit.heldout", digest_size=8)
    return int.from_bytes(drawn.digest()) < floor(share * 2.0**64)


def parted(rows: FileRows, budget_id: str, share: float) -> tuple[FileRows, FileRows]:
    """The rows to train on, and those held out; users are numbered from 0 in each. Raises NoLots."""
    if share == 0:
        return rows, _of(rows, [])
    if rows.lots is None:
        raise NoLots("the file is of a version that held nothing out")
    held = [is_held_out(lot, budget_id, share) for lot in rows.lots]
    return _of(rows, [i for i, out in enumerate(held) if not out]), _of(rows, [i for i, out in enumerate(held) if out])


def _of(rows: FileRows, places: Sequence[int]) -> FileRows:
    users = None if rows.users is None else [rows.users[i] for i in places]
    number = {user: i for i, user in enumerate(dict.fromkeys(users or ()))}
    return replace(
        rows,
        columns={
            name: values.at(places) if isinstance(values, StoredColumn) else [values[i] for i in places]
            for name, values in rows.columns.items()
        },
        labels=None if rows.labels is None else [rows.labels[i] for i in places],
        users=None if users is None else [number[user] for user in users],
        lots=None if rows.lots is None else [rows.lots[i] for i in places],
    )
