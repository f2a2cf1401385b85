"""Is something that the database accepted harmful? What moved without an entry, and what cannot be verified, read or done
any more."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ledger.verify import verify_budget
from tests.ledger.hostile_readers import unreadable
from tests.ledger.hostile_reasons import REASONS
from tests.ledger.hostile_report import Outcome
from tests.ledger.hostile_stage import Change, Stage


class Judge:
    """What verification, readers and duties make of a row is asked once for all the forms that write it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._known: dict[tuple[object, ...], list[str]] = {}

    def judge(self, outcome: Outcome) -> Outcome:
        """What is wrong with something that was accepted, and the reason why it is harmless."""
        one = outcome.attempt
        touched = tuple(sorted(Counter((change.table, change.gone) for change in outcome.changes).items()))
        same = (one.login, one.table, one.column, one.row, touched)
        seen = self._known.get(same) if one.row else None
        if seen is None:
            seen = self._known[same] = list(self._looked(outcome.changes))
        reason = next((r for r in REASONS if r.covers(one.login, one.table, one.column, one.kind)), None)
        return Outcome(one, None, outcome.changes, [*_moved(outcome), *seen], reason)

    def _looked(self, changes: Sequence[Change]) -> Iterator[str]:
        changed = {change.table for change in changes}
        yield from _findings(self._stage, changes)
        yield from unreadable(self._stage.api, changed)
        if changed & _DUTIES:
            yield from self._stage.duties.failing()


_DUTIES = {"ledger.budget", "ledger.entry", "ledger.phase", "ledger.reservation", "ledger.work"}
_DUTIES |= {f"public.{name}" for name in ("checkpoint", "data_key", "file", "idempotency", "job", "job_event")}
"""What the duties of the services read."""

_FIXED: tuple[str, ...] = (
    "tenant_id",
    "orders",
    "weight_numerators",
    "weight_denominator",
    "delta",
    "unit",
    "max_records_per_user",
    "held_out",
)
_FIXED += ("relation", "reference", "epsilon_opened", "created_at")


def _moved(outcome: Outcome) -> Iterator[str]:
    """What moved of budgets without an entry that the attempt asked for, and rows that went away."""
    changes = outcome.changes
    gone = {(c.table, c.row["id"]): c.row for c in changes if c.gone and "id" in c.row}
    posted = Counter(c.row["budget_id"] for c in changes if c.table == "ledger.entry" and not c.gone)
    text = " ".join(outcome.attempt.statements)
    asked = len(re.findall(r"INTO ledger\.(?:entry|budget) ", text))
    asked += outcome.attempt.form in ("copy", "do nothing at once")
    asked += sum(c.table in _SEALED and not c.gone for c in changes)
    if sum(posted.values()) > asked:
        yield f"{sum(posted.values())} entries were posted, {asked} were asked for"
    for change in changes:
        if change.gone and change.table in _KEPT:
            yield f"a row of {change.table} changed or is gone"
        if change.table != "ledger.budget" or change.gone:
            continue
        before, after = gone.get((change.table, change.row["id"])), change.row
        if before is None:
            continue
        yield from (f"{c} of {after['id']} changed" for c in _FIXED if before[c] != after[c])
        if after["head_seq"] - before["head_seq"] != posted[after["id"]]:
            yield f"{after['id']} moved without an entry"
        if after["epsilon"] > before["epsilon"] or after["epsilon_claim"] != before["epsilon_claim"]:
            yield f"the limit of {after['id']} rose"
        if any(a < b for a, b in zip(after["spent"], before["spent"], strict=True)):
            yield f"{after['id']} has spent less than before"
        if before["frozen_reason"] is not None and after["frozen_reason"] != before["frozen_reason"]:
            yield f"{after['id']} was thawed"


_SEALED = ("public.file", "public.fingerprint")
"""What a budget's records follow from: a change of them is sealed in the chain, unasked."""

_KEPT: tuple[str, ...] = (
    "ledger.entry",
    "ledger.authorisation",
    "ledger.curve",
    "ledger.database_id",
    "ledger.finding",
)
_KEPT += tuple(
    f"public.{name}"
    for name in (
        "job_file",
        "release",
        "fingerprint",
        "fingerprint_key",
        "tenant",
        "audit",
        "upload_report",
        "sketch",
        "identity",
        "silo",
    )
)


def _findings(stage: Stage, changes: Sequence[Change]) -> Iterator[str]:
    """Verification of the budgets whose rows changed: it reads the schema `ledger` alone, and one budget's rows."""
    named = {str(value) for c in changes if c.table.startswith("ledger.") for value in c.row.values()}
    held = stage.root.execute(_BUDGETS, {"named": list(named)}).fetchall()
    for (budget,) in held:
        yield from (str(finding) for finding in verified(stage, budget))


_BUDGETS = """
SELECT b.id FROM ledger.budget b WHERE b.id = ANY (%(named)s) OR EXISTS (
  SELECT FROM ledger.reservation r WHERE r.budget_id = b.id AND r.id = ANY (%(named)s))"""


def verified(stage: Stage, budget: str) -> list[object]:
    """Findings; an error of the verification is one."""
    try:
        return list(verify_budget(stage.api, budget))
    except Exception as error:  # noqa: BLE001  whatever a stored value does to it
        return [f"{budget} cannot be verified: {type(error).__name__}: {str(error)[:200]!r}"]
