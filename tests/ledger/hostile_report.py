"""Attempts of a hostile login, what came of each, and what all of them came to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.ledger.hostile_reason import Reason
from tests.ledger.hostile_stage import LOGINS, Change

UNKNOWN = "something else"


@dataclass(frozen=True)
class Attempt:
    """One transaction of a login."""

    login: str
    table: str
    column: str
    kind: str
    form: str
    statements: tuple[str, ...]
    copy: Mapping[str, str] | None = None
    """A row that COPY sends after the first statement, as SQL expressions."""
    row: str = ""
    """What is written, whatever the form; empty: nothing else writes the same."""

    def __str__(self) -> str:
        return f"{self.login} {self.table}.{self.column}: {self.kind} ({self.form})"


@dataclass(frozen=True)
class Outcome:
    attempt: Attempt
    refused: tuple[str, str] | None
    """By what kind of thing, and its name; None: accepted."""
    changes: Sequence[Change] = ()
    wrong: Sequence[str] = ()
    reason: Reason | None = None


@dataclass
class Report:
    """What all attempts came to."""

    refused: dict[str, Counter[str]] = field(default_factory=lambda: {login: Counter() for login in LOGINS})
    by_name: dict[str, Counter[tuple[str, str]]] = field(default_factory=lambda: {login: Counter() for login in LOGINS})
    accepted: dict[str, Counter[Reason | None]] = field(default_factory=lambda: {login: Counter() for login in LOGINS})
    idle: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        login = outcome.attempt.login
        if outcome.refused is not None:
            self.refused[login][outcome.refused[0]] += 1
            self.by_name[login][outcome.refused] += 1
            if outcome.refused[0] == UNKNOWN:
                self.wrong.append(f"{outcome.attempt}: refused by something that has no name: {outcome.refused[1]}")
            return
        if not outcome.changes:
            self.idle[login] += 1
            return
        self.accepted[login][outcome.reason] += 1
        self.wrong += [f"{outcome.attempt}: {what}" for what in outcome.wrong]
        if outcome.reason is None:
            self.wrong.append(f"{outcome.attempt}: accepted, and nothing says why that is harmless")

    @property
    def used(self) -> set[Reason]:
        return {reason for counter in self.accepted.values() for reason in counter if reason is not None}

    def __str__(self) -> str:
        lines = []
        for login in LOGINS:
            refused, accepted = self.refused[login], self.accepted[login]
            tried = refused.total() + accepted.total() + self.idle[login]
            by = ", ".join(f"{n} by {kind}" for kind, n in refused.most_common())
            lines.append(
                f"\n{login}: {tried} statements; refused {refused.total()} ({by}); {self.idle[login]} changed nothing;"
                f" accepted {accepted.total()}:"
            )
            for reason, n in sorted(accepted.items(), key=lambda item: str(item[0])):
                lines.append(f"  {n:5}  {reason or 'NO REASON'}")
        return "\n".join(lines)
