"""Checking what was reserved, authorised and settled: each charge has its job, its phases and their price."""

from collections.abc import Sequence

from dpcore.terms import accounting
from dpcore.terms.accounting import Curve
from ledger.history import Booking, EntryRow, History, Stage, Violations
from ledger.reading import structure

DAY = 86400.0
LONGEST_AGE = 91 * DAY
"""Of a reservation: a day more than the database allows, whose days may have 25 hours."""


def reservations(history: History) -> Violations:
    """What is wrong with the reservations of a budget, their phases, authorisations and work."""
    yield from _charges(history)
    charged, settled = history.first("reserve"), history.first("settle")
    for booking in history.bookings.values():
        yield from _stages(history, booking)
        if booking.id not in charged:
            yield None, f"reservation {booking.id} has no charge"
            continue
        end = settled.get(booking.id)
        yield from _booking(booking, charged[booking.id], end)
        yield from _work(booking, end)
        yield from _prices(history, booking, charged[booking.id], end)
    yield from _repriced(history)


def held(booking: Booking) -> Curve | None:
    """The most that it may cost, as ledger.held has it; None without a phase that can be read."""
    return _sum([stage.reserved for stage in booking.stages])


def owed(booking: Booking, outcome: str | None) -> Curve | None:
    """What it costs when it ends so, as ledger.owed has it: a failure after the first step costs everything."""
    begun = any(stage.steps_authorised for stage in booking.stages)
    costs = [stage.reserved if outcome == "failed" and begun else _cost(stage) for stage in booking.stages]
    total = _sum(costs)
    return None if total is None else tuple(min(t, accounting.SATURATION) for t in total)


def _cost(stage: Stage) -> Curve | None:
    if stage.step_cost is None or stage.steps_authorised is None:
        return None
    return accounting.cost(stage.step_cost, stage.steps_authorised)


def _sum(amounts: Sequence[Curve | None]) -> Curve | None:
    known = [amount for amount in amounts if amount is not None]
    return tuple(map(sum, zip(*known, strict=True))) if known and len(known) == len(amounts) else None


def _charges(history: History) -> Violations:
    charged: set[str | None] = set()
    settled: set[str | None] = set()
    for e in history.lines:
        id = e.reservation_id
        if e.kind == "reserve":
            if id in charged:
                yield e.seq, f"reservation {id} is charged twice"
            elif id not in history.bookings:
                yield e.seq, f"reservation {id} is gone from the budget"
            charged.add(id)
        elif e.kind in ("settle", "approve") and id not in charged:
            yield e.seq, f"the {e.kind} is of a reservation that was never charged"
        elif e.kind == "settle":
            if id in settled:
                yield e.seq, f"reservation {id} is settled twice"
            settled.add(id)
    for job in history.jobs_without_reservation:
        yield None, f"job {job} uses a file of the budget without a reservation"


def _booking(booking: Booking, charge: EntryRow, end: EntryRow | None) -> Violations:
    name = f"reservation {booking.id}"
    if booking.state != ("reserved" if end is None else "settled"):
        yield None, f"{name} is in another state than its entries say"
    if not booking.has_job:
        yield charge.seq, f"the job of {name} is gone"
    if not booking.has_file:
        yield charge.seq, f"{name} is not of the file and the budget that its job names"
    if not (booking.expires_at <= charge.at + LONGEST_AGE and booking.starts_by <= charge.at + LONGEST_AGE):
        yield None, f"{name} may last longer than any"
    whole = [stage.ordinal for stage in booking.stages if stage.indivisible]
    listed = structure(charge.said["whole"]) if charge.said["whole"] is not None else []
    if not (isinstance(listed, list) and all(ordinal in whole for ordinal in listed)):
        yield charge.seq, f"{name} has a phase that was indivisible when it was charged"


def _work(booking: Booking, end: EntryRow | None) -> Violations:
    name = f"reservation {booking.id}"
    work = booking.work
    if work is None or work.fence is None:
        yield None, f"the work on the job of {name} is gone"
        return
    fences = [fence for permit in booking.permits for fence in (permit.lowest_fence, permit.highest_fence)]
    if not all(fence is not None and 0 <= fence <= work.fence for fence in fences):
        yield None, f"steps of {name} were authorised under a fence that there never was"
    if end is None:
        return
    if end.fence is not None and work.fence != end.fence:
        yield end.seq, f"the job of {name} was claimed after its settlement"
    # A worker holds its lease for a moment longer; without one nobody held any.
    if work.live and not work.lease_until <= end.at + (0 if end.fence is None else DAY):
        yield end.seq, f"the job of {name} is being worked on after its settlement"


def _prices(history: History, booking: Booking, charge: EntryRow, end: EntryRow | None) -> Violations:
    full = held(booking)
    if full is None:
        yield charge.seq, f"reservation {booking.id} has no phases, or some that cannot be read"
        return
    if charge.seq > history.last_reprice and charge.reserved_change != full:
        yield charge.seq, "the charge is not the price of what was reserved"
    if end is not None and end.seq > history.last_reprice:
        if end.spent_change != owed(booking, end.outcome):
            yield end.seq, "the settlement is not the price of the authorised steps"
        if end.reserved_change != tuple(-amount for amount in full):
            yield end.seq, "the settlement does not give back what was reserved"


def _stages(history: History, booking: Booking) -> Violations:
    ordinals = [stage.ordinal for stage in booking.stages]
    if ordinals != list(range(len(ordinals))):
        yield None, f"the phases of reservation {booking.id} are not numbered from 0"
    permitted = {permit.ordinal: permit.steps for permit in booking.permits}
    if not permitted.keys() <= set(ordinals):
        yield None, f"steps of a phase that reservation {booking.id} does not have were authorised"
    for stage in booking.stages:
        name = f"phase {stage.ordinal} of reservation {booking.id}"
        rows = permitted.get(stage.ordinal, 0)
        if (
            rows is None
            or stage.steps_max is None
            or stage.steps_authorised is None
            or stage.step_cost is None
            or stage.reserved is None
            or stage.indivisible is None
        ):
            yield None, f"{name} cannot be read"
            continue
        if stage.steps_authorised != (stage.steps_max if stage.indivisible and rows else rows):
            yield None, f"{name} has other authorised steps than its authorisations add up to"
        if stage.reserved != accounting.cost(stage.step_cost, stage.steps_max):
            yield None, f"{name} does not reserve its steps times its curve"
        if not _priced(history, stage, stage.step_cost):
            yield None, f"{name} has a curve that is not that of its mechanism"


def _priced(history: History, stage: Stage, step_cost: Curve) -> bool:
    rate, noise = stage.sample_rate, stage.noise_multiplier
    if stage.curve_id is not None:
        registered, indivisible = history.curves.get(stage.curve_id, (None, None))
        whole = stage.indivisible or indivisible is False
        return rate is None and noise is None and step_cost == registered and whole
    if rate is None or noise is None or not (0 < rate <= 1 and 0.2 <= noise <= 1000):
        return False
    ours = accounting.curve(noise, rate, history.account.orders)
    # Both round up, each from its own last bits, so that either may be one unit above the other.
    return all(c - 1 <= o <= c * (1 + 1e-8) + 2 for c, o in zip(step_cost, ours, strict=True))


def _repriced(history: History) -> Violations:
    """What the newest re-pricing left must be what everything booked before it costs today, and the corrections."""
    last, nothing = history.last_reprice, history.account.nothing
    settled = history.first("settle")
    corrections = [e.spent_change for e in history.lines if e.kind == "correction" and e.seq < last]
    ended_then, open_then = [nothing, *corrections], [nothing]
    for id, charge in history.first("reserve").items():
        if charge.seq < last:
            end = settled.get(id)
            if end is not None and end.seq > last:
                end = None
            booking = history.bookings.get(id)
            price = None if booking is None else held(booking) if end is None else owed(booking, end.outcome)
            if price is None:
                return  # found already
            (open_then if end is None else ended_then).append(price)
    spent, reserved = nothing, nothing
    for e in history.lines:
        if e.seq <= last:
            spent = tuple(min(a + b, accounting.SATURATION) for a, b in zip(spent, e.spent_change, strict=True))
            reserved = tuple(a + b for a, b in zip(reserved, e.reserved_change, strict=True))
    # An order that has saturated stays so, whatever it would cost today.
    right = all(s in (accounting.SATURATION, sum(due)) for s, *due in zip(spent, *ended_then, strict=True))
    if last and not (right and reserved == _sum(open_then)):
        yield last, "the re-pricing is not the price of what was booked before it"
