"""Checking that no fingerprint of a budget's records and users went, came or was exchanged behind the triggers."""

import hashlib

from ledger.canonical import packed
from ledger.history import Counts, History, Violations


def records(history: History) -> Violations:
    """By what the database counted as they came, and by the newest entry that sealed it: a budget from before there
    were such entries has none until its next file."""
    if history.fingerprints != history.populations:
        yield None, "the fingerprints are not those that were counted as they came: some are gone, made up or exchanged"
    newest = max((e for e in history.lines if e.kind == "records"), key=lambda e: e.seq, default=None)
    if newest is not None and newest.said["digest"] != digest(history.account.id, history.fingerprints):
        yield newest.seq, "the fingerprints are not those that this entry sealed"


def digest(budget_id: str, counts: Counts) -> str:
    """As ledger.records_digest has it."""
    fields = ["tacit.records.v1", budget_id]
    for kind, (marks, sums) in sorted(counts.items(), key=lambda item: str(item[0])):
        fields += [str(kind), str(marks), *str(sums).strip("{}").split(",")]
    return hashlib.sha256(packed(fields)).hexdigest()
