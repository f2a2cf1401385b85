"""The matrix: a decision, another act that could make it wrong, a level for each, and every interleaving.

A cell is as serial when answers and rows are those of one act after the other, in a world of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, groupby
from typing import Literal

import sqlalchemy as sa

from ledger.verify import verify_budget
from tests.ledger.isolation.rows import read, text, unpaid
from tests.ledger.isolation.sessions import (
    NOTHING,
    Act,
    Interleaving,
    Level,
    Names,
    Session,
    Site,
    after,
    before,
    interleavings,
)

RC: Level = "READ COMMITTED"
RR: Level = "REPEATABLE READ"
SR: Level = "SERIALIZABLE"
Levels = tuple[Level, Level]
"""Of the decision and of the other act."""
LEVELS: tuple[Levels, ...] = ((RC, RC), (RR, RC), (SR, RC))
ALL_LEVELS: tuple[Levels, ...] = (*LEVELS, (RR, RR), (SR, SR))
REFUSALS = ("TC011", "40001")
"""Of a level: the ledger's own, and Postgres's when a snapshot is too old for what is locked."""
Verdict = Literal["r", "=", "!"]


@dataclass(frozen=True, eq=False)
class Case:
    """A decision of one of the ledger's functions, and an act that would make it wrong."""

    function: str
    """In the catalogue, `schema.name`; after a blank, the kind of entry that it decides about."""
    decision: Act
    other: Act
    first: Sequence[Act] = ()
    """What the world looks like, beside its tenant, keys, budgets and files."""
    sound: bool = True
    """Whether verification has nothing to find in the world as it is first."""

    def __str__(self) -> str:
        return (
            f"{self.function.removeprefix('ledger.').removeprefix('public.')}: {self.decision.name} | {self.other.name}"
        )


@dataclass(frozen=True)
class Seen:
    """What two acts came to: the answers to the decision and to the other act, and the rows."""

    decision: str
    other: str
    rows: str
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One of the matrix. verdict: r the level was refused, = as serial, ! wrong."""

    case: Case
    levels: Levels
    interleaving: str
    verdict: Verdict
    why: str = ""

    def __str__(self) -> str:
        return f"{self.case} [{' / '.join(self.levels)}, {self.interleaving}] {self.why}"


class Stage:
    """A migrated database for many small worlds."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._numbers = count(1)

    @contextmanager
    def pair(self, case: Case, levels: Levels) -> Iterator[tuple[Names, Session, Session]]:
        """The decision's and the other act's session in a new world."""
        names = self._world(case.first)
        decision = Session(self.site, case.decision, names, levels[0])
        other = Session(self.site, case.other, names, levels[1])
        try:
            yield names, decision, other
        finally:
            decision.close()
            other.close()

    def seen(self, names: Names, decision: Session, other: Session) -> Seen:
        rows = read(self.site.root, names.world)
        touched = [b["id"] for b in rows["ledger.budget"] if b["head_seq"] > 1]
        found = [f"{f.budget_id}: {f.what}" for b in touched for f in verify_budget(self.site.root, b)]
        found = sorted(f.replace(f"{names.world}-", "") for f in [*found, *unpaid(rows)])
        if rows["ledger.lost_budget"]:  # nobody is new in the worlds to come otherwise
            with self.site.engines["admin"].begin() as c:
                c.execute(_ACCEPT)
        return Seen(decision.answer, other.answer, text(rows, names.world), tuple(found))

    def _world(self, first: Sequence[Act]) -> Names:
        names = Names(f"w{next(self._numbers)}")
        with self.site.engines["api"].begin() as c:
            c.exec_driver_sql(_WORLD.replace("{world}", names.world))
        for login, acts in groupby(first, lambda act: act.login):
            with self.site.engines[login].begin() as c:
                for act in acts:
                    act.run(c, names)
        return names


class Serial:
    """What the two acts may come to, each found in a world of its own. Raises AssertionError where that is not sound."""

    def __init__(self, stage: Stage, case: Case) -> None:
        self._stage, self._case = stage, case

    @cached_property
    def neither(self) -> Seen:
        return self._seen(lambda d, o: None, sound=self._case.sound)

    @cached_property
    def decision(self) -> Seen:
        return self._seen(lambda d, o: d.whole())

    @cached_property
    def other(self) -> Seen:
        return self._seen(lambda d, o: o.whole(), sound=self._case.sound)

    @cached_property
    def other_first(self) -> Seen:
        return self._seen(before)

    @cached_property
    def decision_first(self) -> Seen:
        return self._seen(after)

    def _seen(self, order: Callable[[Session, Session], None], *, sound: bool = True) -> Seen:
        with self._stage.pair(self._case, (RC, RC)) as (names, decision, other):
            order(decision, other)
            seen = self._stage.seen(names, decision, other)
        assert not sound or seen.findings == (), f"{self._case}: {seen.findings}"
        for answer in (seen.decision, seen.other):
            mistaken = answer.startswith(("40", "42", "TC011")) and answer != "42501"
            assert not mistaken, f"{self._case}: one after the other is answered {answer}"
        return seen


def cells(stage: Stage, case: Case, levels: Sequence[Levels], only: Callable[[Levels, str], bool]) -> Iterator[Cell]:
    """Every interleaving at these levels that `only` lets pass."""
    expected = Serial(stage, case)
    for pair in levels:
        statements: int | None = None  # that the decision sends at this level
        for order in interleavings():
            if not only(pair, order.name) or (statements is not None and order.place >= max(1, statements)):
                continue
            with stage.pair(case, pair) as (names, decision, other):
                order.run(decision, other)
                statements = decision.sent if order.name == "before" else statements
                seen = stage.seen(names, decision, other)
            verdict, allowed = _judged(expected, seen, order, pair)
            yield Cell(case, pair, order.name, verdict, _difference(seen, allowed) if verdict == "!" else "")


def _judged(expected: Serial, seen: Seen, order: Interleaving, levels: Levels) -> tuple[Verdict, list[Seen]]:
    answers = seen.decision, seen.other
    refused = [answer in REFUSALS and level != RC for answer, level in zip(answers, levels, strict=True)]
    gone = refused[0] or order.rolls_back == "decision", refused[1] or order.rolls_back == "other"
    shown = replace(seen, decision=NOTHING if gone[0] else seen.decision, other=NOTHING if gone[1] else seen.other)
    if gone == (True, True):
        allowed = [expected.neither]
    elif any(gone):
        allowed = [expected.other if gone[0] else expected.decision]
    elif order.name in ("before", "after"):
        allowed = [expected.other_first if order.name == "before" else expected.decision_first]
    else:
        allowed = [expected.other_first, expected.decision_first]
    return ("!" if shown not in allowed else "r" if any(refused) else "="), allowed


def _difference(seen: Seen, allowed: Sequence[Seen]) -> str:
    ours = set(seen.rows.split("\n"))
    nearest = min((set(a.rows.split("\n")) for a in allowed), key=lambda theirs: len(theirs ^ ours))
    answers = " or ".join(f"({a.decision}, {a.other})" for a in allowed)
    return (
        f"answers ({seen.decision}, {seen.other}) in place of {answers}; found: {list(seen.findings)};"
        f" rows {sorted(ours - nearest)} in place of {sorted(nearest - ours)}"
    )


_ACCEPT = sa.text("UPDATE ledger.lost_budget SET accepted_reason = 'end of a world' WHERE accepted_at IS NULL")
_WORLD = """
INSERT INTO tenant (id, name) VALUES ('{world}-tenant', 'hospital');
INSERT INTO api_key (id, tenant_id, name, prefix, mac, scopes, project)
  SELECT '{world}-' || name, '{world}-tenant', 'k', 'tacit_', convert_to('{world}-' || name, 'UTF8'), scopes, project
  FROM (VALUES ('steward', '{steward}'::text[], NULL), ('second', '{steward}', NULL), ('third', '{steward}', NULL),
               ('analyst', '{analyst}', 'lab')) AS k (name, scopes, project);
INSERT INTO ledger.budget (id, tenant_id, name, epsilon, delta, unit, reference, weight_numerators, weight_denominator)
  SELECT '{world}-budget_' || b, '{world}-tenant', 'notes', 8, 1e-5, 'record',
         '{"sample_rate": 0.01, "steps": 500, "noise_multiplier": null}', '{1,1,2,1,1,1,1,1,1,1,1,1}', 13
  FROM unnest('{a,b}'::text[]) AS b;
INSERT INTO file (id, tenant_id, purpose, filename, budget_id)
  SELECT '{world}-file_' || b, '{world}-tenant', 'fine-tune', 'f', '{world}-budget_' || b FROM unnest('{a,b}'::text[]) AS b;
"""
"""A tenant with keys, and two budgets with a file each."""
