"""Checking a budget's whole history against its balance, without trusting the triggers that wrote it."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa

from dpcore.spec import accounting
from ledger import policy
from ledger.canonical import entry_hash
from ledger.tables import authorisation, budget, entry, phase, reservation
from ledger.verify_rights import Problems, Row, exact_caps, rights


@dataclass(frozen=True)
class Finding:
    """Something that does not hold; `seq` is the entry where it shows, if it shows at one."""

    budget_id: str
    seq: int | None
    what: str


def verify_budget(connection: sa.Connection, budget_id: str, policy_key: str | None = None) -> list[Finding]:
    """Everything that is wrong with one budget; empty when all holds. Runs in one snapshot if the caller opened one.

    policy_key: hexadecimal public key that raised limits, thaws and corrections must be signed with; None: not checked.
    """
    row = connection.execute(
        sa.select(budget, sa.literal_column("ledger.genesis(budget.*)", sa.LargeBinary).label("genesis")).where(
            budget.c.id == budget_id
        )
    ).one_or_none()
    if row is None:
        return [Finding(budget_id, None, "the budget is gone")]
    entries = connection.execute(
        sa.select(entry, sa.literal_column("ledger.entry_fields(entry.*)", sa.ARRAY(sa.Text)).label("fields"))
        .where(entry.c.budget_id == budget_id)
        .order_by(entry.c.seq)
    ).all()
    found = [
        *_chain(row, entries),
        *_balance(row, entries),
        *_limits(row, entries, policy_key),
        *_reservations(connection, row, entries),
        *rights(connection, row, entries),
    ]
    return [Finding(budget_id, seq, what) for seq, what in found]


def _chain(row: Row, entries: Sequence[Row]) -> Problems:
    previous = row._mapping["genesis"]
    for expected, e in enumerate(entries, 1):
        if e.seq != expected:
            yield expected, f"the sequence goes from {expected - 1} to {e.seq}"
            break
        if e.prev_hash != previous:
            yield e.seq, "the hash of the entry before does not match"
        if entry_hash(e.prev_hash, e.fields) != e.hash:
            yield e.seq, "the entry does not hash to its hash: it was edited"
        previous = e.hash
    if (row.head_seq, row.head_hash) != (len(entries), previous):
        yield None, "the head is not the last entry"


def _balance(row: Row, entries: Sequence[Row]) -> Problems:
    spent, reserved = [0] * len(row.orders), [0] * len(row.orders)
    for e in entries:
        spent = [min(a + b, accounting.SATURATION) for a, b in zip(spent, e.spent_change, strict=True)]
        reserved = [a + int(b) for a, b in zip(reserved, e.reserved_change, strict=True)]
    if spent != row.spent:
        yield None, "the entries do not add up to what is spent"
    if reserved != [int(x) for x in row._mapping["reserved"]]:
        yield None, "the entries do not add up to what is reserved"
    if row.frozen_reason is None and not accounting.fits(row.cap, spent, reserved):
        yield None, "the budget is overspent"


def _limits(row: Row, entries: Sequence[Row], policy_key: str | None) -> Problems:
    current = claim = row._mapping["epsilon_opened"]
    for e in entries:
        if e.kind == "limit":
            new = Decimal(e.detail["epsilon"])
            needs_signature, current, claim = new > current, new, max(claim, new)
        else:
            needs_signature = e.kind in policy.SIGNED_KINDS
        if needs_signature and policy_key is not None:
            unsigned = not policy.signature_holds(e.budget_id, e.seq, e.kind, e.detail or {}, policy_key)
            if unsigned:
                yield e.seq, f"the {e.kind} is not signed by the policy key"
    if (current, claim) != (row.epsilon, row.epsilon_claim):
        yield None, "the limit is not the one that the entries set"
    if tuple(row.cap) != exact_caps(current, row):
        yield None, "the caps are not those of the limit"


def _reservations(connection: sa.Connection, row: Row, entries: Sequence[Row]) -> Problems:
    charged = {e.reservation_id: e for e in entries if e.kind == "reserve"}
    settled = {e.reservation_id: e for e in entries if e.kind == "settle"}
    last_reprice = max((e.seq for e in entries if e.kind == "reprice"), default=0)
    for r in connection.execute(
        sa.select(
            reservation.c.id,
            reservation.c.state,
            sa.literal_column("ledger.held(reservation.id)").label("held"),
        ).where(reservation.c.budget_id == row.id)
    ):
        if r.id not in charged:
            yield None, f"reservation {r.id} has no charge"
            continue
        if (r.state == "settled") != (r.id in settled):
            yield None, f"reservation {r.id} is {r.state}, its entries say otherwise"
        if charged[r.id].seq > last_reprice and list(charged[r.id].reserved_change) != list(r.held):
            yield charged[r.id].seq, "the charge is not the price of what was reserved"
        if r.id in settled and settled[r.id].seq > last_reprice:
            e = settled[r.id]
            owed = connection.execute(sa.select(sa.func.ledger.owed(r.id, e.outcome))).scalar_one()
            if list(e.spent_change) != list(owed):
                yield e.seq, "the settlement is not the price of the authorised steps"
    yield from _phases(connection, row)


def _phases(connection: sa.Connection, row: Row) -> Problems:
    authorised = (
        sa.select(sa.func.coalesce(sa.func.sum(authorisation.c.steps), 0))
        .where(authorisation.c.reservation_id == phase.c.reservation_id, authorisation.c.ordinal == phase.c.ordinal)
        .scalar_subquery()
    )
    for p in connection.execute(
        sa.select(phase, authorised.label("rows"))
        .join(reservation, reservation.c.id == phase.c.reservation_id)
        .where(reservation.c.budget_id == row.id)
    ):
        name = f"phase {p.ordinal} of reservation {p.reservation_id}"
        expected = p.steps_max if p.indivisible and p.rows else p.rows
        if p.steps_authorised != expected:
            yield None, f"{name} has {p.steps_authorised} authorised steps, its authorisations add up to {expected}"
        if list(p.reserved) != [min(c * p.steps_max, accounting.SATURATION) for c in p.step_cost]:
            yield None, f"{name} does not reserve its steps times its curve"
        if p.curve_id is None:
            ours = accounting.curve(p.noise_multiplier, p.sample_rate, tuple(row.orders))
            if not all(c <= o <= c * (1 + 1e-8) + 2 for c, o in zip(p.step_cost, ours, strict=True)):
                yield None, f"{name} has a curve that is not that of its mechanism"
