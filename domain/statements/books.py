"""What the ledger says of a budget and of a reservation, in the numbers of a statement: never less than what was
charged."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from platform import python_version
from typing import Any

import sqlalchemy as sa

from domain.statements.models import OddsPoint, StatedBalance, StatedEntry, StatedFilter, StatedOdds
from dpcore.terms import accounting, odds
from dpcore.terms.accounting import Curve
from ledger.budgets import Balance
from ledger.tables import entry, phase, reservation

OF_FILTER = (
    "the budget's filter: delta(e) <= sum over its orders of delta w(a) exp((a - 1) (epsilon - e)), since jobs are "
    "chosen after seeing the results of others"
)
OF_LOSSES = "the privacy loss distribution of this job alone (dp-accounting), its plan fixed before"


@dataclass(frozen=True)
class ChargedPhase:
    """One phase of a reservation: what it may cost at most, and what it was charged."""

    sample_rate: float
    noise_multiplier: float
    steps_max: int
    steps_authorised: int
    steps_charged: int
    step_cost: Curve
    cost: Curve


@dataclass(frozen=True)
class Booked:
    """A job's reservation of one budget."""

    reservation: str
    budget: str
    settled: str | None
    """The outcome that it was settled with; None: it is open."""
    phases: tuple[ChargedPhase, ...]
    entries: tuple[sa.Row[Any], ...]
    """Its own lines of the ledger, oldest first: number, kind, hash, time and changes."""
    repriced: bool
    """Whether the budget was priced again after its last entry."""

    @property
    def cost(self) -> Curve:
        """Charged so far, at each order: the larger of what its entries and its phases say, but today's price where the
        budget was priced again."""
        now = accounting.total([one.cost for one in self.phases])
        settled = [tuple(row.spent_change) for row in self.entries if row.kind == "settle"]
        if self.repriced or not settled:
            return now
        return tuple(max(a, b) for a, b in zip(now, settled[0], strict=True))

    @property
    def reserved(self) -> Curve:
        """The most that it may cost."""
        return accounting.total([accounting.cost(one.step_cost, one.steps_max) for one in self.phases])

    @property
    def begun(self) -> bool:
        """Whether a step was ever authorised."""
        return any(one.steps_authorised for one in self.phases)


def one_moment(connection: sa.Connection) -> None:
    """All that this transaction reads from now on is of one moment, and it writes nothing: a job that is settled
    meanwhile must not be half of a statement. Before anything else in the transaction."""
    connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def booked(connection: sa.Connection, job_id: str) -> Booked:
    """Of the job whose reservation pays. Raises sqlalchemy.exc.NoResultFound."""
    row = connection.execute(
        sa.select(reservation).where(reservation.c.job_id == job_id).order_by(reservation.c.id).limit(1)
    ).one()
    return _booked(connection, row.budget_id, [row])[job_id]


def all_booked(connection: sa.Connection, budget_id: str) -> dict[str, Booked]:
    """Of all jobs that were ever charged to a budget, by job."""
    rows = connection.execute(sa.select(reservation).where(reservation.c.budget_id == budget_id)).all()
    return _booked(connection, budget_id, rows)


def _booked(connection: sa.Connection, budget_id: str, rows: Sequence[sa.Row[Any]]) -> dict[str, Booked]:
    """Of some of a budget's reservations, by job."""
    ids = [row.id for row in rows]
    entries: dict[str, list[sa.Row[Any]]] = defaultdict(list)
    for line in connection.execute(sa.select(entry).where(entry.c.reservation_id.in_(ids)).order_by(entry.c.seq)):
        entries[line.reservation_id].append(line)
    phases: dict[str, list[sa.Row[Any]]] = defaultdict(list)
    for part in connection.execute(sa.select(phase).where(phase.c.reservation_id.in_(ids)).order_by(phase.c.ordinal)):
        phases[part.reservation_id].append(part)
    later = sa.select(sa.func.max(entry.c.seq)).where(entry.c.budget_id == budget_id, entry.c.kind == "reprice")
    repriced = connection.scalar(later) or 0
    return {row.job_id: _of(row, entries[row.id], phases[row.id], repriced) for row in rows}


def _of(row: sa.Row[Any], entries: Sequence[sa.Row[Any]], phases: Sequence[sa.Row[Any]], repriced: int) -> Booked:
    settled = next((str(one.outcome) for one in entries if one.kind == "settle"), None)
    whole = settled == "failed" and any(one.steps_authorised for one in phases)
    return Booked(
        reservation=row.id,
        budget=row.budget_id,
        settled=settled,
        phases=tuple(_charged(one, whole) for one in phases),
        entries=tuple(entries),
        repriced=repriced > max((one.seq for one in entries), default=0),
    )


def _charged(row: sa.Row[Any], whole: bool) -> ChargedPhase:
    steps = row.steps_max if whole else row.steps_authorised
    step = tuple(row.step_cost)
    return ChargedPhase(
        sample_rate=row.sample_rate,
        noise_multiplier=row.noise_multiplier,
        steps_max=row.steps_max,
        steps_authorised=row.steps_authorised,
        steps_charged=steps,
        step_cost=step,
        cost=accounting.cost(step, steps),
    )


def epsilon_of(amount: Sequence[int], held: Balance) -> float | None:
    """What this amount alone would take of the empty budget, though it were past its limit; None where no order holds
    it."""
    if not any(amount):
        return 0.0
    found = accounting.epsilon_alone(tuple(min(int(a), accounting.SATURATION) for a in amount), held.delta, held.filter)
    return None if found == float("inf") else found


def at_entry(connection: sa.Connection, held: Balance, seq: int) -> StatedBalance:
    """Where a budget stood after its entry of this number, as parts of what it is now."""
    sums = [
        sa.func.coalesce(sa.func.sum(entry.c.spent_change[i] + entry.c.reserved_change[i]), 0)
        for i in range(1, len(held.filter.orders) + 1)
    ]
    found = connection.execute(sa.select(*sums).where(entry.c.budget_id == held.id, entry.c.seq <= seq)).one()
    used = tuple(int(amount) for amount in found)
    return StatedBalance(entry=seq, share_used=held.share_of(used), epsilon_used=epsilon_of(used, held))


def filter_of(held: Balance) -> StatedFilter:
    """Orders and weights."""
    found = held.filter
    return StatedFilter(
        orders=list(found.orders),
        weights=[str(weight) for weight in found.weights],
        main_order=found.orders[found.main],
    )


def within(held: Balance, claim: float) -> bool:
    """Whether all that is spent and reserved is covered by this claim at some order: a correction may go past it."""
    cap = held.cap if claim == held.epsilon else accounting.caps(claim, held.delta, held.filter)
    return accounting.fits(cap, held.used, held.filter.nothing)


def odds_of(found: odds.TradeOff, epsilon: float, delta: float, basis: str, what: str, unit: str) -> StatedOdds:
    """A trade-off curve in numbers and words."""
    return stated_odds(odds.curve(found), found.best_accuracy(), epsilon, delta, basis, what, unit)


def stated_odds(
    points: Sequence[tuple[float, float]],
    best_accuracy: float,
    epsilon: float,
    delta: float,
    basis: str,
    what: str,
    unit: str,
) -> StatedOdds:
    """The same of a curve that was computed before. Raises LookupError for one without the points that are named."""
    at = {innocent: share for innocent, share in points}
    return StatedOdds(
        basis=basis,
        curve=[OddsPoint(innocent=innocent, found=share) for innocent, share in points],
        found_at_one_percent=at[0.01],
        found_at_five_percent=at[0.05],
        best_accuracy=best_accuracy,
        by_epsilon_and_delta=odds.of_pair(epsilon, delta).found(0.01),
        sentence=odds.in_words(at[0.01], what, unit),
    )


def entry_line(row: sa.Row[Any]) -> StatedEntry:
    """A line of the ledger."""
    return StatedEntry(seq=row.seq, kind=row.kind, hash=row.hash.hex(), at=minute(row.at))


def minute(at: datetime | float) -> str:
    """UTC, to the minute."""
    when = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at.astimezone(UTC)
    return f"{when:%Y-%m-%dT%H:%MZ}"


def stated_with() -> dict[str, str]:
    """What this process makes statements with."""
    return {"tacit": version("tacit"), "python": python_version(), "dp-accounting": version("dp-accounting")}
