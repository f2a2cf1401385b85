"""Checking a budget's rules and grants against its entries, without trusting the triggers that wrote them."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext

import sqlalchemy as sa

from dpcore.spec import accounting
from ledger.tables import budget_grant, reservation

Row = sa.Row[tuple[object, ...]]
Problems = Iterator[tuple[int | None, str]]
"""Where it shows (an entry's number, if at one), and what does not hold."""


def rights(connection: sa.Connection, row: Row, entries: Sequence[Row]) -> Problems:
    """What is wrong with the rules, grants and approvals of the budget `row`, whose whole chain is `entries`."""
    yield from _rules(row, entries)
    yield from _charged_grants(connection, row, entries)
    yield from _grants(connection, row, entries)


def _rules(row: Row, entries: Sequence[Row]) -> Problems:
    said = next((e.detail for e in reversed(entries) if e.kind == "rules"), {"queue_days": "7"})
    if (row.approval_above, row.queue_days) != (_decimal(said.get("approval_above")), int(said["queue_days"])):
        yield None, "the rules are not those that the entries set"


def _charged_grants(connection: sa.Connection, row: Row, entries: Sequence[Row]) -> Problems:
    said = {e.reservation_id: e.detail or {} for e in entries if e.kind == "reserve"}
    approved = {e.reservation_id for e in entries if e.kind == "approve"}
    for r in connection.execute(sa.select(reservation).where(reservation.c.budget_id == row.id)):
        charge = said.get(r.id, {})
        if r.grant_id != charge.get("grant"):
            yield None, f"reservation {r.id} names another grant than its charge"
        if r.waits != (charge.get("waits", False) and r.id not in approved):
            yield None, f"reservation {r.id} has an approval that the entries do not have"


def _grants(connection: sa.Connection, row: Row, entries: Sequence[Row]) -> Problems:
    given = {e.detail["grant"]: e for e in entries if e.kind == "grant"}
    revoked = {e.detail["grant"] for e in entries if e.kind == "revoke"}
    repriced = any(e.kind == "reprice" for e in entries)
    amounts = _amounts(connection, row, entries)
    rows = {
        g.id: g for g in connection.execute(sa.select(budget_grant).where(budget_grant.c.budget_id == row.id)).all()
    }
    for id in given.keys() - rows.keys():
        yield given[id].seq, f"grant {id} is gone"
    for id in rows.keys() - given.keys():
        yield None, f"grant {id} was given by no entry"
    for id in sorted(given.keys() & rows.keys()):
        g, detail = rows[id], given[id].detail
        terms = (g.key_id, g.project, g.epsilon, g.approval_above, g.created_by)
        above = _decimal(detail.get("approval_above"))
        if terms != (detail.get("key"), detail.get("project"), _decimal(detail.get("epsilon")), above, detail["by"]):
            yield given[id].seq, f"grant {id} has other terms than its entry"
        # A re-pricing, too, revokes a grant that it leaves past its caps.
        if (g.revoked_at is None and id in revoked) or (g.revoked_at and id not in revoked and not repriced):
            yield None, f"the entries say otherwise of whether grant {id} is revoked"
        if g.epsilon is not None and tuple(g.cap) != exact_caps(g.epsilon, row):
            yield None, f"the caps of grant {id} are not those of its sub-limit"
        nothing = (0,) * len(row.orders)
        spent, reserved = amounts.get(id, (nothing, nothing))
        if (tuple(g.spent), tuple(int(x) for x in g._mapping["reserved"])) != (spent, reserved):
            yield None, f"the entries do not add up to the balance of grant {id}"
        if g.cap is not None and g.revoked_at is None and not accounting.fits(g.cap, spent, reserved):
            yield None, f"grant {id} is overspent"


def _amounts(
    connection: sa.Connection, row: Row, entries: Sequence[Row]
) -> dict[str, tuple[accounting.Curve, accounting.Curve]]:
    """Spent and reserved of each grant: by the entries, or where a re-pricing came later, by today's phases."""
    charged = {e.reservation_id: e for e in entries if e.kind == "reserve"}
    settled = {e.reservation_id: e for e in entries if e.kind == "settle"}
    last_reprice = max((e.seq for e in entries if e.kind == "reprice"), default=0)
    spent: dict[str, list[Sequence[int]]] = defaultdict(list)
    reserved: dict[str, list[Sequence[int]]] = defaultdict(list)
    for id, charge in charged.items():
        grant = (charge.detail or {}).get("grant")
        if grant is None:
            continue
        end = settled.get(id)
        if end is None:
            amount, today = charge.reserved_change, sa.func.ledger.held(id)
        else:
            amount, today = end.spent_change, sa.func.ledger.owed(id, end.outcome)
        if (end or charge).seq < last_reprice:
            amount = connection.execute(sa.select(today)).scalar_one()
        (reserved if end is None else spent)[grant].append(amount)
    nothing = (0,) * len(row.orders)
    return {
        g: (_sum([nothing, *spent[g]], accounting.SATURATION), _sum([nothing, *reserved[g]]))
        for g in {*spent, *reserved}
    }


def _sum(amounts: Sequence[Sequence[int]], most: float = math.inf) -> accounting.Curve:
    return tuple(int(min(sum(x), most)) for x in zip(*amounts, strict=True))


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def exact_caps(epsilon: Decimal, row: Row) -> tuple[int, ...]:
    """Caps of the budget `row` at a limit as the database defines them, by decimal arithmetic of 60 digits."""
    with localcontext() as context:
        context.prec = 60
        found = []
        for a, n in zip(row.orders, row.weight_numerators, strict=True):
            weight = (Decimal(n) / row.weight_denominator).quantize(Decimal("1e-40"))
            log_c = -Decimal(a).ln() + (a - 1) * (1 - 1 / Decimal(a)).ln()
            room = epsilon + (row.delta.ln() + weight.ln() - log_c) / (a - 1)
            found.append(min(math.floor(room * accounting.UNITS_PER_NAT) - 1, accounting.SATURATION - 1))
        return tuple(found)
