"""What witnesses know of the chains, compared with the database's own."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ledger import policy
from ledger.tables import budget, database_id, entry, lost_budget
from ledger.witness import Head

_HELD = sa.text(
    "SELECT w.budget_id, w.seq, e.hash"
    " FROM unnest(CAST(:budgets AS text[]), CAST(:seqs AS bigint[])) AS w (budget_id, seq)"
    " JOIN ledger.budget b ON b.id = w.budget_id"
    " LEFT JOIN ledger.entry e ON e.budget_id = w.budget_id AND e.seq = w.seq"
)


@dataclass
class Dispute:
    """A budget whose chain in the database does not hold what a witness saw."""

    head: Head
    """The furthest that is missing."""
    frozen_for: dict[str, Head] = field(default_factory=dict)
    """Those, by name, that the budget's own entries say it was frozen for."""

    @property
    def heads(self) -> list[Head]:
        return [*self.frozen_for.values(), self.head]


@dataclass
class KnownHeads:
    """Every budget that a witness or an earlier look at the database has shown, and what the database made of it since.

    It holds a few heads of each budget, however many lines the witnesses have.
    """

    heads: dict[str, Head] = field(default_factory=dict)
    """The furthest of each budget; of those in the database: as it is there."""
    disputed: dict[str, Dispute] = field(default_factory=dict)
    superseded: dict[str, Head] = field(default_factory=dict)
    """The newest thaw of each budget that accepted its chain as it is. Whoever knows of one writes it into a witness
    before anything else: so what a witness says of the budget without having that line is older than the thaw."""
    lost: dict[str, Head] = field(default_factory=dict)
    """Of budgets that the database does not know."""


@dataclass
class Freezes:
    """What a budget's chain says of freezes on a witness's word, and of thaws."""

    frozen_for: dict[str, int] = field(default_factory=dict)
    """Head.name to the number of the newest entry that froze the budget for it."""
    thaws: list[tuple[Head, dict[str, str]]] = field(default_factory=list)
    """With their details, oldest first; not all need be signed by the policy key."""


@dataclass(frozen=True)
class Look:
    """Which database it is, and where its budgets stand; nothing was compared."""

    database: str
    rows: Sequence[Any]


@dataclass(frozen=True)
class Stock:
    """The budgets of the database at one look."""

    heads: dict[str, Head]
    frozen: frozenset[str]
    freezes: Mapping[str, Freezes]


def identity(connection: sa.Connection) -> str:
    """Which database this is: the same for its dumps and copies."""
    return str(connection.execute(sa.select(database_id.c.id)).scalar_one())


def freezes(connection: sa.Connection) -> dict[str, Freezes]:
    """Of every budget that was ever frozen or thawed."""
    rows = connection.execute(
        sa.select(entry.c.budget_id, entry.c.seq, entry.c.kind, entry.c.hash, entry.c.detail)
        .where(sa.text("kind IN ('freeze', 'thaw')"))  # in these words, or the index of freezes is not used
        .order_by(entry.c.budget_id, entry.c.seq)
    )
    found: dict[str, Freezes] = defaultdict(Freezes)
    for row in rows:
        if not isinstance(row.detail, dict):
            continue  # somebody wrote past the constraints: for verification to find
        if row.kind == "thaw":
            found[row.budget_id].thaws.append((Head(row.budget_id, row.seq, row.hash.hex()), row.detail))
        elif "witness" in row.detail:
            found[row.budget_id].frozen_for[str(row.detail["witness"])] = row.seq
    return dict(found)


def take_in(
    connection: sa.Connection,
    known: KnownHeads,
    lines: Sequence[Head],
    thaws: dict[str, Head],
    said: Mapping[str, Freezes],
) -> list[Head]:
    """Compare lines of one witness, in their order, with the database; answers those that its chains hold.

    thaws: the newest superseding line of each budget in this witness so far; brought up to date.
    """
    held = _held(connection, lines)
    good = []
    for line in lines:
        id, place = line.budget_id, (line.budget_id, line.seq)
        if place in held and held[place] != line.hash:
            accepted_since = known.superseded.get(id)
            if accepted_since is None or thaws.get(id) == accepted_since:
                _dispute(known, line, said)
            continue
        known.heads[id] = _further(line, known.heads.get(id))
        if place in held:  # otherwise the budget is lost
            good.append(line)
            if line.supersedes:
                thaws[id] = line
                if id not in known.superseded or known.superseded[id].seq < line.seq:
                    known.superseded[id] = line
                    known.disputed.pop(id, None)
    return good


def look(connection: sa.Connection) -> Look:
    """One statement."""
    rows = connection.execute(
        sa.select(
            database_id.c.id.label("database"),
            budget.c.id,
            budget.c.head_seq,
            budget.c.head_hash,
            budget.c.frozen_reason,
        ).select_from(database_id.outerjoin(budget, sa.true()))
    ).all()
    return Look(str(rows[0].database), [row for row in rows if row.id is not None])


def take_stock(connection: sa.Connection, known: KnownHeads, seen: Look | None = None) -> Stock:
    """Look at the database's heads, and whether all that is known is still in its chains."""
    rows = (seen or look(connection)).rows
    said = freezes(connection)
    present = {row.id: Head(row.id, row.head_seq, row.head_hash.hex()) for row in rows}
    moved = [head for id, head in known.heads.items() if id in present and head != present[id]]
    held = _held(
        connection, [*moved, *known.superseded.values(), *(dispute.head for dispute in known.disputed.values())]
    )
    for id, thaw in list(known.superseded.items()):
        if held.get((id, thaw.seq)) != thaw.hash:
            del known.superseded[id]
    for id, dispute in list(known.disputed.items()):
        if held.get((id, dispute.head.seq)) == dispute.head.hash:  # a copy that lacked it was in the database's place
            del known.disputed[id]
        else:
            _answer(dispute, dispute.head, said)  # another process may have frozen it
    for head in moved:
        if held.get((head.budget_id, head.seq)) != head.hash:
            _dispute(known, head, said)
    known.lost = {id: head for id, head in known.heads.items() if id not in present}
    known.heads |= present
    return Stock(present, frozenset(row.id for row in rows if row.frozen_reason is not None), said)


def accepted(dispute: Dispute, said: Freezes | None, policy_key: str | None) -> Head | None:
    """The thaw by which the operator took a chain as it is: one after a freeze for what a witness misses in it, signed
    with the policy key where there is one (hexadecimal)."""
    if said is None:
        return None
    since = [said.frozen_for[name] for name in dispute.frozen_for if name in said.frozen_for]
    for thaw, detail in reversed(said.thaws):
        signed = policy_key is None or policy.signature_holds(thaw.budget_id, thaw.seq, "thaw", detail, policy_key)
        if signed and since and thaw.seq > min(since):
            return thaw
    return None


def reason(dispute: Dispute, present: Head) -> str:
    """Why a budget is frozen, for its steward and the operator."""
    head = dispute.head
    if present.seq < head.seq:
        return (
            f"the ledger stands at entry {present.seq} but the witness saw entry {head.seq}: "
            "an old backup was restored, and charges are missing"
        )
    return (
        f"entry {head.seq} is not the one that the witness saw: an old backup was restored and has gone on, or history "
        "was rewritten; charges may be missing"
    )


def unaccepted_losses(connection: sa.Connection, known: KnownHeads) -> list[str]:
    """The lost budgets that the operator has not accepted."""
    done = sa.select(lost_budget.c.budget_id).where(lost_budget.c.accepted_at.is_not(None))
    return sorted(known.lost.keys() - set(connection.execute(done).scalars()))


def _dispute(known: KnownHeads, head: Head, said: Mapping[str, Freezes]) -> None:
    dispute = known.disputed.setdefault(head.budget_id, Dispute(head))
    dispute.head = _further(dispute.head, head)
    _answer(dispute, head, said)


def _answer(dispute: Dispute, head: Head, said: Mapping[str, Freezes]) -> None:
    if head.budget_id in said and head.name in said[head.budget_id].frozen_for:
        dispute.frozen_for[head.name] = head


def _held(connection: sa.Connection, heads: Iterable[Head]) -> dict[tuple[str, int], str | None]:
    """The hashes at these places of the database's chains, None past their end; places of budgets that it does not know
    are left out."""
    places = sorted({(head.budget_id, head.seq) for head in heads})
    if not places:
        return {}
    budgets, seqs = zip(*places, strict=True)
    rows = connection.execute(_HELD, {"budgets": list(budgets), "seqs": list(seqs)})
    return {(row.budget_id, row.seq): None if row.hash is None else row.hash.hex() for row in rows}


def _further(one: Head, other: Head | None) -> Head:
    return one if other is None or one.seq >= other.seq else other
