"""Checking a budget's whole history against its balance, without trusting the triggers that wrote it.

Which column is noticed by which check: docs/verification.md.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from dpcore.terms import accounting
from ledger import policy
from ledger.canonical import entry_hash, packed
from ledger.history import Account, EntryRow, History, Violations
from ledger.read_history import read
from ledger.reading import exact, structure
from ledger.verify_records import records
from ledger.verify_reservations import reservations
from ledger.verify_rights import caps_of, rights

LONGEST = 300
"""Characters of a finding: an id may be of any length, the reason of a freeze may not."""
_MUST_SAY: Mapping[str, tuple[str, ...]] = {
    "open": (),
    "reserve": (),
    "settle": (),
    "freeze": ("reason",),
    "thaw": ("reason",),
    "limit": ("reason", "epsilon"),
    "correction": ("reason",),
    "reprice": ("reason",),
    "overlap": ("reason",),
    "grant": ("grant", "by"),
    "revoke": ("grant", "by"),
    "rules": ("reason", "by", "queue_days"),
    "approve": ("by",),
    "records": ("digest",),
}

_OF_A_JOB = ("reserve", "settle", "approve")


@dataclass(frozen=True)
class Finding:
    """Something that does not hold; `seq` is the entry where it shows, if it shows at one."""

    budget_id: str
    seq: int | None
    what: str


def verify_budget(connection: sa.Connection, budget_id: str, policy_key: str | None = None) -> list[Finding]:
    """Everything that is wrong with one budget; empty when all holds. Runs in one snapshot if the caller opened one.

    No row makes it raise: what cannot be read is a finding. The API's login reads all that it needs; the worker's does
    not.
    policy_key: hexadecimal public key that raised limits, thaws and corrections must be signed with; None: not checked.
    """
    history = read(connection, budget_id)
    if history is None:
        return [Finding(budget_id, None, "the budget is gone")]
    found = [
        *history.problems,
        *_chain(history),
        *_words(history),
        *_replay(history, policy_key),
        *reservations(history),
        *rights(history),
        *records(history),
    ]
    return [Finding(budget_id, seq, what[:LONGEST]) for seq, what in found]


def _chain(history: History) -> Violations:
    previous = _genesis(history.account)
    for expected, e in enumerate(history.lines, 1):
        if e.seq != expected:
            yield expected, f"the sequence goes from {expected - 1} to {e.seq}"
            break
        if e.prev_hash != previous:
            yield e.seq, "the hash of the entry before does not match"
        if e.hash is None or e.hash != _hash(e):
            yield e.seq, "the entry does not hash to its hash: it was edited"
        previous = e.hash
    if (history.account.head_seq, history.account.head_hash) != (len(history.lines), previous):
        yield None, "the head is not the last entry"


def _genesis(account: Account) -> str | None:
    """Where the chain starts, as ledger.genesis has it."""
    cap = caps_of(account, account.epsilon_opened)
    if cap is None or None in account.never_changes:
        return None
    fields = [*map(str, account.never_changes), f"{{{','.join(map(str, cap))}}}"]
    return hashlib.sha256(packed(fields)).hexdigest()


def _hash(e: EntryRow) -> str | None:
    if e.prev_hash is None or None in e.fields:
        return None
    return entry_hash(bytes.fromhex(e.prev_hash), list(map(str, e.fields))).hex()


def _words(history: History) -> Violations:
    """What an entry of its kind must say, and may not move."""
    for e in history.lines:
        if e.kind is None or e.kind not in _MUST_SAY:
            yield e.seq, "the entry is of no known kind"
            continue
        for key in _MUST_SAY[e.kind]:
            if e.said[key] is None:
                yield e.seq, f"the {e.kind} does not say its {key}"
        # The hash covers NULL as it covers an empty text.
        if (e.reservation_id is None, e.outcome is None) != (e.kind not in _OF_A_JOB, e.kind != "settle"):
            yield e.seq, f"the {e.kind} names what it may not, or not what it must"
        spends, reserves = any(e.spent_change), any(e.reserved_change)
        if (
            (spends and e.kind not in ("settle", "correction", "reprice"))
            or (reserves and e.kind not in ("reserve", "settle", "reprice"))
            or (e.kind == "correction" and min(e.spent_change, default=0) < 0)
        ):
            yield e.seq, f"the {e.kind} moves what it may not"
    if not _is_a_job(structure(history.account.reference)):
        yield None, "the reference job cannot be read"


def _is_a_job(reference: object) -> bool:
    if not isinstance(reference, dict):
        return False
    rate, steps, noise = (reference.get(key) for key in ("sample_rate", "steps", "noise_multiplier"))
    if not isinstance(rate, int | float) or not isinstance(noise, int | float | None):
        return False
    return 0 < rate <= 1 and type(steps) is int and steps > 0 and (noise is None or noise > 0)


def _replay(history: History, policy_key: str | None) -> Violations:
    account = history.account
    spent, reserved = account.nothing, account.nothing
    limit = claim = account.epsilon_opened
    cap = caps_of(account, limit)
    if cap is None:
        yield None, "no caps follow from the first limit, the delta and the weights"
    frozen: str | None = None
    for e in history.lines:
        spent = tuple(min(a + b, accounting.SATURATION) for a, b in zip(spent, e.spent_change, strict=True))
        reserved = tuple(a + b for a, b in zip(reserved, e.reserved_change, strict=True))
        must_sign = e.kind in policy.SIGNED_KINDS
        if e.kind == "limit":
            before, limit = limit, exact(e.said["epsilon"])
            if limit is None:
                yield e.seq, "the limit is no number"
            else:
                must_sign = before is not None and limit > before
                claim = limit if claim is None else max(claim, limit)
            cap = caps_of(account, limit)
        if must_sign and policy_key is not None and not _signed(e, account.id, policy_key):
            yield e.seq, f"the {e.kind} is not signed by the policy key"

        over = cap is not None and not accounting.fits(cap, spent, reserved)
        if e.kind == "reserve" and frozen is not None:
            yield e.seq, "the budget was frozen when this was charged"
        elif e.kind == "reserve" and over:
            yield e.seq, "the charge did not fit"
        elif e.kind == "freeze" and frozen is None:
            frozen = e.said["reason"]
        elif e.kind == "thaw":
            frozen = None
            if over:
                yield e.seq, "the budget was thawed while over its limit"
        elif e.kind in ("limit", "correction", "reprice") and frozen is None and over:
            frozen = f"over its limit after a {e.kind}: {e.said['reason']}"

    if account.spent != spent:
        yield None, "the entries do not add up to what is spent"
    if account.reserved != reserved:
        yield None, "the entries do not add up to what is reserved"
    if (account.epsilon, account.epsilon_claim) != (limit, claim) or limit is None:
        yield None, "the limit is not the one that the entries set"
    if account.cap != cap or cap is None:
        yield None, "the caps are not those of the limit"
    if account.frozen_reason != frozen:
        yield None, "the entries say otherwise of whether, or why, the budget is frozen"
    if frozen is None and cap is not None and not accounting.fits(cap, spent, reserved):
        yield None, "the budget is overspent"


def _signed(e: EntryRow, budget_id: str, policy_key: str) -> bool:
    detail = structure(e.detail)
    return isinstance(detail, dict) and policy.signature_holds(budget_id, e.seq, str(e.kind), detail, policy_key)
