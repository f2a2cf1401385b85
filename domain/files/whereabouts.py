"""To which budget a file's records belong, and what only its steward can say about that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from domain.files import fingerprints
from domain.files.resemblance import Resemblance
from domain.ingest.marks import Marks
from domain.kit.refusals import Conflict
from domain.kit.tables import file, identity, release
from ledger.tables import entry


@dataclass(frozen=True)
class Decision:
    """A steward's word: whether the records that other budgets hold, or that resemble theirs, are of the same
    people."""

    same: bool
    reason: str | None = None


@dataclass(frozen=True)
class Destination:
    """Where a file goes. budget_id None: to a new budget."""

    budget_id: str | None
    inherited: bool = False
    decided: Sequence[str] = ()
    """Budgets that are of different people by the decision at hand."""


@dataclass
class Ask:
    """What is to be asked before a file goes anywhere."""

    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each budget how many records resemble its own, and in which files; or that its records cannot be
    recognised."""


def place(
    connection: sa.Connection,
    tenant_id: str,
    asked: str | None,
    marks: Marks,
    near: Resemblance,
    decision: Decision | None,
) -> Destination | Ask:
    """Where the records of a private file belong; asked: the budget that was named, None to open one.

    What a budget holds stays there, so that the same people are never in two. Texts that only resemble another budget's
    are a question, never a refusal. What was decided between two budgets is not asked again. Raises Conflict for
    records that several budgets hold.
    """
    holders = fingerprints.holders(connection, tenant_id, marks)
    different = decision is not None and not decision.same
    home = asked
    if home is None and holders and not different:
        home = _home(connection, holders)
    settled = set() if home is None else {home, *_decided(connection, home)}
    others = sorted(holders.keys() - settled)
    if others and not different:
        raise overlap(others, f"in the budget {', '.join(others)}, not in {home}; put the file there")
    doubtful = _doubtful(connection, tenant_id, near, settled | holders.keys(), opens=home is None)
    if doubtful and decision is None:
        return Ask(doubtful)
    if doubtful and decision is not None and decision.same:
        resembled = sorted(doubtful)
        if len(resembled) > 1 or home in holders:
            raise overlap(
                resembled, f"in several budgets, {', '.join([*resembled, *sorted(holders)])}; split the file by budget"
            )
        return Destination(resembled[0], inherited=True)
    return Destination(
        home, asked is None and home is not None, sorted({*others, *doubtful} - {home}) if different else ()
    )


def private_texts(connection: sa.Connection, tenant_id: str, marks: Marks, near: Resemblance) -> Ask:
    """What is to be asked before a file becomes public: in which budgets it has texts, or such as they."""
    found: dict[str, dict[str, Any]] = {
        budget_id: {"records": count, "files": []}
        for budget_id, count in fingerprints.holders(connection, tenant_id, marks).items()
    }
    for budget_id, files in near.budgets.items():
        held = found.get(budget_id, {"records": 0})["records"]
        found[budget_id] = {"records": max(held, near.in_budget(budget_id)), "files": files}
    return Ask(found)


def was_released(connection: sa.Connection, tenant_id: str, sha256: str) -> bool:
    """Whether a job of the tenant released a file of these very bytes: what is in it is out already, and to ask about
    it would tell more of private texts than the job was charged for."""
    released = (
        sa.exists()
        .where(release.c.file_id == file.c.id, release.c.kind == "synthetic")
        .where(file.c.tenant_id == tenant_id, file.c.sha256 == sha256)
    )
    return bool(connection.scalar(sa.select(released)))


def overlap(others: Sequence[str], where: str) -> Conflict:
    """The refusal to put records of one budget under another."""
    return Conflict(
        f"some of these records or users are already {where}, or send overlap=different_population with an "
        "overlap_reason if they are other people who match by chance",
        code="overlapping_records",
        param="budget",
        budgets=list(others),
    )


def _home(connection: sa.Connection, holders: Mapping[str, int]) -> str:
    """Of several budgets the one that holds most of them, if it was decided that the others are of different people:
    so a file that came before such a decision lands where it did. Ties are for the steward."""
    first, *ties = [budget_id for budget_id in sorted(holders) if holders[budget_id] == max(holders.values())]
    if ties or holders.keys() - {first} - _decided(connection, first):
        named = ", ".join(sorted(holders))
        raise overlap(
            sorted(holders), f"in several budgets, {named}; split the file by budget, or send one of them as budget"
        )
    return first


def _decided(connection: sa.Connection, budget_id: str) -> set[str]:
    """The budgets that hold different people than this one, by its own entries."""
    other = entry.c.detail["other_budget"].as_string()
    found = sa.select(other).where(entry.c.budget_id == budget_id, entry.c.kind == "overlap")
    return set(connection.execute(found).scalars())


def _doubtful(
    connection: sa.Connection, tenant_id: str, near: Resemblance, known: set[str], *, opens: bool
) -> dict[str, dict[str, Any]]:
    """Budgets that a person has to say something about."""
    found: dict[str, dict[str, Any]] = {
        budget_id: {"records": near.in_budget(budget_id), "files": files}
        for budget_id, files in near.budgets.items()
        if budget_id not in known
    }
    if opens:
        for budget_id in _unrecognised(connection, tenant_id) - known - found.keys():
            found[budget_id] = {"records": None, "files": []}
    return found


def _unrecognised(connection: sa.Connection, tenant_id: str) -> set[str]:
    """Budgets with files whose records are known under a lost key alone."""
    keys = fingerprints.keys(connection)
    if len(keys) < 2:
        return set()
    under_newest = sa.select(identity.c.file_id).where(identity.c.key_mark == keys[0])
    lost = sa.select(file.c.budget_id).where(
        file.c.tenant_id == tenant_id, file.c.budget_id.is_not(None), file.c.id.not_in(under_newest)
    )
    return set(connection.execute(lost).scalars())
