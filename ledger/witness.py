"""The witness: heads of the chains in an append-only file outside the database.

A database restored from an old dump has forgotten charges whose results are already out. The witness remembers how far
each chain had come; a budget that stands behind it is frozen.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger import policy
from ledger.canonical import packed
from ledger.tables import budget, entry


@dataclass(frozen=True)
class Head:
    """How far a budget's chain had come: the last entry and its hash in hexadecimal."""

    budget_id: str
    seq: int
    hash: str


class BrokenWitness(ValueError):
    """A line of the witness file was not written by this service, or is damaged."""


def append(path: Path, key: Ed25519PrivateKey, heads: Iterable[Head]) -> None:
    """Add signed lines and bring them to the disk before returning; several processes may do so at once."""
    lines = "".join(
        json.dumps({"budget": h.budget_id, "seq": h.seq, "hash": h.hash, "signature": key.sign(_signed(h)).hex()})
        + "\n"
        for h in heads
    )
    if not lines:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, lines.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, public_key: Ed25519PublicKey) -> dict[str, Head]:
    """The furthest head of each budget; empty when there is no file yet.

    A last line without its newline was cut off by a crash before anything relied on it, and is passed over.
    Raises BrokenWitness for any other line that does not hold.
    """
    furthest: dict[str, Head] = {}
    try:
        data = path.read_text()
    except FileNotFoundError:
        return furthest
    for number, line in enumerate(data.split("\n")[:-1], 1):
        try:
            raw = json.loads(line)
            head = Head(raw["budget"], raw["seq"], raw["hash"])
            public_key.verify(bytes.fromhex(raw["signature"]), _signed(head))
        except (ValueError, KeyError, TypeError, InvalidSignature):
            raise BrokenWitness(f"line {number} of the witness file was not signed by this service") from None
        if head.budget_id not in furthest or head.seq > furthest[head.budget_id].seq:
            furthest[head.budget_id] = head
    return furthest


def heads(connection: sa.Connection, known: Mapping[str, Head]) -> list[Head]:
    """Heads that stand further than what is known already."""
    rows = connection.execute(sa.select(budget.c.id, budget.c.head_seq, budget.c.head_hash))
    return [
        Head(r.id, r.head_seq, r.head_hash.hex()) for r in rows if r.id not in known or r.head_seq > known[r.id].seq
    ]


def behind(connection: sa.Connection, seen: Mapping[str, Head]) -> dict[str, str]:
    """Budgets whose chain does not contain what the witness saw, each with the reason."""
    found: dict[str, str] = {}
    for head in seen.values():
        row = connection.execute(
            sa.select(budget.c.head_seq, entry.c.hash)
            .select_from(budget)
            .outerjoin(entry, sa.and_(entry.c.budget_id == budget.c.id, entry.c.seq == head.seq))
            .where(budget.c.id == head.budget_id)
        ).one_or_none()
        if row is None:
            found[head.budget_id] = f"the witness saw entry {head.seq} of a budget that the database does not know"
        elif row.head_seq < head.seq:
            found[head.budget_id] = (
                f"the ledger stands at entry {row.head_seq} but the witness saw entry {head.seq}: "
                "an old backup was restored, and charges are missing"
            )
        elif row.hash is None or row.hash.hex() != head.hash:
            found[head.budget_id] = f"entry {head.seq} is not the one that the witness saw: history was rewritten"
    return found


def freeze_behind(connection: sa.Connection, seen: Mapping[str, Head]) -> dict[str, str]:
    """Freeze every budget that stands behind its witness; answers them with the reasons."""
    reasons = behind(connection, seen)
    rows = connection.execute(sa.select(budget.c.id, budget.c.frozen_reason).where(budget.c.id.in_(reasons)))
    for row in rows.all():
        if row.frozen_reason is None:
            policy.freeze(connection, row.id, reasons[row.id])
    return reasons


def _signed(head: Head) -> bytes:
    return packed(["tacit.witness.v1", head.budget_id, str(head.seq), head.hash])
