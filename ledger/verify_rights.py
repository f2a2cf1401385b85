"""Checking a budget's rules and grants against its entries, without trusting the triggers that wrote them."""

import math
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

from dpcore.terms import accounting
from dpcore.terms.accounting import Curve
from ledger.history import Account, EntryRow, History, Pass, Violations
from ledger.reading import exact, structure, whole
from ledger.verify_reservations import held, owed


def rights(history: History) -> Violations:
    """What is wrong with the rules, grants and approvals of a budget."""
    yield from _rules(history)
    yield from _charged_grants(history)
    yield from _grants(history)


def _rules(history: History) -> Violations:
    said = next((e.said for e in reversed(history.lines) if e.kind == "rules"), {"queue_days": "7"})
    days = whole(history.account.queue_days)
    if (
        not _agree(history.account.approval_above, said.get("approval_above"))
        or days is None
        or days != whole(said["queue_days"])
        or history.account.require_intended_use is not (said.get("require_intended_use") == "true")
    ):
        yield None, "the rules are not those that the entries set"


def _charged_grants(history: History) -> Violations:
    charged, approved = history.first("reserve"), history.first("approve")
    for booking in history.bookings.values():
        said = charged[booking.id].said if booking.id in charged else {}
        if booking.grant_id != said.get("grant"):
            yield None, f"reservation {booking.id} names another grant than its charge"
        if booking.waits != (said.get("waits") == "true" and booking.id not in approved):
            yield None, f"reservation {booking.id} has an approval that the entries do not have"


def _grants(history: History) -> Violations:
    given = {id: e for e in history.lines if e.kind == "grant" and (id := e.said["grant"]) is not None}
    revoked = {e.said["grant"] for e in history.lines if e.kind == "revoke"}
    amounts = _amounts(history)
    for id in sorted(given.keys() - history.passes.keys()):
        yield given[id].seq, f"grant {id} is gone"
    for id, pass_ in history.passes.items():
        if id in given:
            yield from _pass(history, pass_, given[id], id in revoked, *amounts.get(id, (None, None)))
        else:
            yield None, f"grant {id} was given by no entry"


def _pass(
    history: History, g: Pass, given: EntryRow, revoked: bool, spent: Curve | None, reserved: Curve | None
) -> Violations:
    said, nothing = given.said, history.account.nothing
    spent, reserved = spent or nothing, reserved or nothing
    terms = {"epsilon": g.epsilon, "share": g.share, "approval_above": g.approval_above, "most_steps": g.most_steps}
    numbers = all(_agree(written, said[name]) for name, written in terms.items())
    names = structure(g.models) == structure(said["models"]) and structure(g.methods) == structure(said["methods"])
    ends = whole(said["expires_at"])
    when = math.isnan(g.expires_at) if ends is None else g.expires_at == ends
    who = (g.key, g.project, g.by) == (said["key"], said["project"], said["by"])
    if not (numbers and names and when and who):
        yield given.seq, f"grant {g.id} has other terms than its entry"
    # A re-pricing, too, revokes a grant that it leaves past its caps.
    if (revoked and not g.revoked) or (g.revoked and not revoked and not history.last_reprice):
        yield None, f"the entries say otherwise of whether grant {g.id} is revoked"
    cap = _sub_limit(history, g.id, given)
    if g.cap != cap or (g.capped and cap is None):
        yield None, f"the caps of grant {g.id} are not those of its sub-limit"
    if (g.spent, g.reserved) != (spent, reserved):
        yield None, f"the entries do not add up to the balance of grant {g.id}"
    if cap is not None and not g.revoked and not accounting.fits(cap, spent, reserved):
        yield None, f"grant {g.id} is overspent"


def _sub_limit(history: History, id: str, given: EntryRow) -> Curve | None:
    """A grant's caps: of its epsilon, or its share of the limit that was in force when a job was last charged to it."""
    share, account = exact(given.said["share"]), history.account
    if share is None:
        return caps_of(account, exact(given.said["epsilon"]))
    last = max((e.seq for e in history.lines if e.kind == "reserve" and e.said["grant"] == id), default=given.seq)
    limits = (exact(e.said["epsilon"]) for e in reversed(history.lines) if e.kind == "limit" and e.seq < last)
    whole_cap, weights = caps_of(account, next(limits, account.epsilon_opened)), account.weight_numerators
    if whole_cap is None or weights is None or not 0 < share <= 1:
        return None
    return accounting.share_caps(Fraction(share), whole_cap, weights.index(max(weights)))


def _agree(written: str | None, said: str | None) -> bool:
    """Whether two numbers are the same, or both missing; one that cannot be read is like none."""
    number = exact(written)
    return written == said is None or (number is not None and number == exact(said))


def _amounts(history: History) -> dict[str, tuple[Curve, Curve]]:
    """Spent and reserved of each grant: by the entries, or where a re-pricing came later, by today's phases."""
    settled = history.first("settle")
    spent: dict[str, list[Curve]] = defaultdict(lambda: [history.account.nothing])
    reserved: dict[str, list[Curve]] = defaultdict(lambda: [history.account.nothing])
    for id, charge in history.first("reserve").items():
        grant = charge.said["grant"]
        if grant is None:
            continue
        end, booking = settled.get(id), history.bookings.get(id)
        amount: Curve | None = charge.reserved_change if end is None else end.spent_change
        if (end or charge).seq < history.last_reprice and booking is not None:
            amount = held(booking) if end is None else owed(booking, end.outcome)
        if amount is not None:
            (reserved if end is None else spent)[grant].append(amount)
    return {g: (_sum(spent[g], accounting.SATURATION), _sum(reserved[g])) for g in {*spent, *reserved}}


def _sum(amounts: Sequence[Curve], most: float = math.inf) -> Curve:
    return tuple(int(min(sum(x), most)) for x in zip(*amounts, strict=True))


def caps_of(account: Account, epsilon: Decimal | None) -> Curve | None:
    """What a limit holds; None where it does not follow, because one of the numbers cannot be read or cannot be."""
    weights, denominator = account.weight_numerators, account.weight_denominator
    if epsilon is None or account.delta is None or weights is None or denominator is None:
        return None
    if not (epsilon > 0 and 0 < account.delta < 1 and min(weights) > 0 and sum(weights) == denominator):
        return None
    return _exact_caps(epsilon, account.delta, account.orders, weights, denominator)


def _exact_caps(
    epsilon: Decimal, delta: Decimal, orders: Sequence[int], numerators: Sequence[int], denominator: int
) -> Curve:
    """Caps as the database defines them, by decimal arithmetic of 60 digits."""
    with localcontext() as context:
        context.prec = 60
        found = []
        for a, n in zip(orders, numerators, strict=True):
            weight = (Decimal(n) / denominator).quantize(Decimal("1e-40"))
            log_c = -Decimal(a).ln() + (a - 1) * (1 - 1 / Decimal(a)).ln()
            room = epsilon + (delta.ln() + weight.ln() - log_c) / (a - 1)
            found.append(min(math.floor(room * accounting.UNITS_PER_NAT) - 1, accounting.SATURATION - 1))
        return tuple(found)
