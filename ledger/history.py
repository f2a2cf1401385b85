"""Everything that the database holds about one budget, in memory, as the checks take it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from dpcore.terms.accounting import Curve

Violation = tuple[int | None, str]
"""Where it shows (an entry's number, if at one), and what does not hold. It may become the reason of a freeze, which
analysts see: ids and names, never a count or a text of a row."""
Violations = Iterator[Violation]
SAYINGS = (
    *("reason", "epsilon", "grant", "key", "project", "approval_above"),
    *("by", "waits", "queue_days", "whole", "digest"),
    *("share", "expires_at", "models", "methods", "most_steps", "require_intended_use"),
)
"""What the checks look for in the detail of an entry."""
Counts = Mapping[str | None, tuple[str | None, str | None]]
"""For each kind of fingerprint how many there are, and their eight sums, as the server writes them."""


@dataclass(frozen=True)
class Account:
    """A row of ledger.budget. Here and below None is what cannot be read, and NaN a time that is none."""

    id: str
    tenant_id: str | None
    orders: Curve
    """None where they cannot be read: then no amount can."""
    epsilon: Decimal | None
    epsilon_opened: Decimal | None
    epsilon_claim: Decimal | None
    delta: Decimal | None
    weight_numerators: Curve | None
    weight_denominator: int | None
    cap: Curve | None
    spent: Curve | None
    reserved: Curve | None
    reference: str | None
    frozen_reason: str | None
    approval_above: str | None
    queue_days: str | None
    require_intended_use: bool | None
    head_seq: int | None
    head_hash: str | None
    never_changes: Sequence[str | None]
    """Texts that the hash from which the chain starts covers, its version first, the caps apart."""

    @property
    def nothing(self) -> Curve:
        """No amount at any order."""
        return (0,) * len(self.orders)


@dataclass(frozen=True)
class EntryRow:
    """A row of ledger.entry. Amounts that cannot be read are nothing, and a problem."""

    seq: int
    kind: str | None
    reservation_id: str | None
    outcome: str | None
    fence: int | None
    spent_change: Curve
    reserved_change: Curve
    at: float
    """Seconds since 1970."""
    prev_hash: str | None
    hash: str | None
    fields: Sequence[str | None]
    """What the hash covers, in ledger.entry_fields' order."""
    detail: str | None
    """JSON."""
    said: Mapping[str, str | None]
    """The texts of SAYINGS in the detail, as ->> gives them."""


@dataclass(frozen=True)
class Stage:
    """A row of ledger.phase."""

    ordinal: int | None
    sample_rate: float | None
    noise_multiplier: float | None
    steps_max: int | None
    steps_authorised: int | None
    step_cost: Curve | None
    reserved: Curve | None
    curve_id: str | None
    indivisible: bool | None


@dataclass(frozen=True)
class Work:
    """A row of ledger.work."""

    fence: int | None
    lease_until: float
    live: bool
    """Whether somebody holds the lease now."""


@dataclass(frozen=True)
class Permits:
    """The authorisations of one phase together."""

    ordinal: int | None
    steps: int | None
    lowest_fence: int | None
    highest_fence: int | None


@dataclass(frozen=True)
class Booking:
    """A row of ledger.reservation and what hangs on it."""

    id: str
    state: str | None
    grant_id: str | None
    waits: bool | None
    expires_at: float
    starts_by: float
    has_job: bool
    """One of the budget's tenant."""
    has_file: bool
    """One of the budget, that the job names for it."""
    stages: Sequence[Stage]
    permits: Sequence[Permits]
    work: Work | None


@dataclass(frozen=True)
class Pass:
    """A row of ledger.budget_grant."""

    id: str
    key: str | None
    project: str | None
    epsilon: str | None
    share: str | None
    approval_above: str | None
    expires_at: float
    models: str | None
    methods: str | None
    """JSON, as `models`."""
    most_steps: str | None
    by: str | None
    capped: bool
    cap: Curve | None
    spent: Curve | None
    reserved: Curve | None
    revoked: bool


@dataclass(frozen=True)
class History:
    """A budget and all that hangs on it."""

    account: Account
    lines: Sequence[EntryRow]
    """The chain, in the order of its numbers."""
    bookings: Mapping[str, Booking]
    passes: Mapping[str, Pass]
    curves: Mapping[str, tuple[Curve | None, bool | None]]
    """What a step of each registered mechanism costs, and whether it is indivisible."""
    jobs_without_reservation: Sequence[str | None]
    fingerprints: Counts
    populations: Counts
    """What the database counted when the fingerprints came."""
    problems: Sequence[Violation]
    """What cannot be read."""

    def first(self, kind: str) -> dict[str, EntryRow]:
        """By reservation, its first entry of this kind."""
        return {e.reservation_id: e for e in reversed(self.lines) if e.kind == kind and e.reservation_id is not None}

    @cached_property
    def last_reprice(self) -> int:
        """The newest re-pricing, 0 without one: what was booked before it has another price today."""
        return max((e.seq for e in self.lines if e.kind == "reprice"), default=0)
