"""Budgets as they go over the wire."""

from decimal import Decimal
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field

from api.fields import Body, Delta, Epsilon, HeldOut, Name, Reason
from domain.access import budgets
from dpcore.terms import accounting
from ledger.budgets import Reference, for_display

MOST_RECORDS = 1_000_000
"""Largest bound on the records of a user."""


class ReferenceJob(Body):
    """The public job that the budget should suit best, repeated until it is full."""

    sample_rate: float = Field(gt=0, le=1)
    steps: int = Field(ge=1, le=10_000_000)
    noise_multiplier: float | None = Field(
        default=None, ge=accounting.MIN_NOISE_MULTIPLIER, le=accounting.MAX_NOISE_MULTIPLIER
    )

    def as_reference(self) -> Reference:
        return Reference(self.sample_rate, self.steps, self.noise_multiplier)


class NewBudget(Body):
    """A request to open a budget. It can never be deleted or refilled."""

    name: Name
    epsilon: Epsilon = Field(description="the most that all jobs together may cost")
    delta: Delta = Field(description="below 1 / the largest declared size of its files")
    unit: Literal["record", "user"] = "record"
    max_records_per_user: int | None = Field(default=None, ge=1, le=MOST_RECORDS, description="of a user, in one file")
    held_out: HeldOut = 0.0
    reference: ReferenceJob | None = Field(default=None, description="default: sample rate 0.01, 500 steps")


class Rules(Body):
    """What jobs to come wait for and must say, and how long they may wait: public values. What is left out stays."""

    approval_above: Epsilon | None = Field(
        default=None, description="a job of a larger epsilon waits for a steward; null: none waits"
    )
    queue_days: int | None = Field(
        default=None, ge=1, le=30, description="within which a worker must begin a job, or it is given up"
    )
    require_intended_use: bool | None = Field(
        default=None, description="a job that does not say what it is for is refused"
    )
    reason: Reason

    @property
    def changes(self) -> dict[str, Any]:
        """What was sent, as the ledger takes it."""
        sent = {"queue_days": self.queue_days, "require_intended_use": self.require_intended_use}
        found: dict[str, Any] = {name: value for name, value in sent.items() if value is not None}
        if "approval_above" in self.model_fields_set:
            found["approval_above"] = None if self.approval_above is None else exact(self.approval_above)
        return found


class Rename(Body):
    """Another name for people."""

    name: Name


class LedgerState(BaseModel):
    """The numbers behind a balance, at each order; costs in units of 1e-12 nat."""

    orders: list[int]
    weights: list[str]
    cap: list[int]
    spent: list[int]
    reserved: list[int]
    seq: int
    hash: str


class Budget(BaseModel):
    """A budget. Its spent and reserved epsilon are what these amounts alone would take of the empty budget. One whose
    row in the database is damaged is shown frozen and used up, and its ledger's numbers are empty."""

    id: str
    object: Literal["budget"] = "budget"
    created_at: int
    name: str
    epsilon: float
    epsilon_claim: float = Field(description="the highest limit ever set: what the guarantee speaks of")
    delta: float
    unit: str
    max_records_per_user: int | None
    held_out: float = Field(
        description="share of the units that no job trains on; on them a job may measure its result, for a price"
    )
    relation: str
    epsilon_spent: float
    epsilon_reserved: float
    epsilon_left: float
    share_spent: float | None = Field(
        description="of the cap at the main order, rounded up; more than one where another order admitted jobs, null "
        "where a lowered limit leaves that order nothing"
    )
    share_reserved: float | None = Field(description="the same of what unfinished jobs may still take")
    share_left: float = Field(description="rounded down: a job of at most this share fits")
    approval_above: float | None = Field(description="a job of a larger epsilon waits for a steward")
    queue_days: int = Field(description="a job that no worker has begun after so many days is given up")
    require_intended_use: bool = Field(description="a job that does not say what it is for is refused")
    reference_jobs_left: int = Field(description="jobs like the budget's reference job that still fit")
    frozen: bool
    frozen_reason: str | None
    guarantee: str
    reference: dict[str, Any]
    ledger: LedgerState


class Recognised(BaseModel):
    """How the records of a file are recognised when they come again."""

    id: str = Field(description="of the file")
    object: Literal["file.recognition"] = "file.recognition"
    by: Literal["texts", "whole records", "nothing"] = Field(
        description="each text by itself, in whatever task and format; whole records in the same columns, of a file "
        "whose rows were gone before texts were known; nothing, since the fingerprint key was lost"
    )
    users: bool = Field(description="users by what their ids mean; otherwise by their spelling")
    elsewhere: int = Field(description="texts that another budget held already when the file was read again")


class KeyName(BaseModel):
    """Whose key did something: the name that the key was given, of a person or a service."""

    id: str
    name: str


class Entry(BaseModel):
    """One line of a budget's ledger, sealed by the hash of the line before."""

    id: str
    object: Literal["budget.entry"] = "budget.entry"
    budget: str
    seq: int
    kind: str
    job: str | None
    reservation: str | None
    outcome: str | None
    detail: dict[str, Any] | None
    fence: int | None
    epsilon_after: float
    spent_change: list[int]
    reserved_change: list[int]
    actor: str = Field(description="the login that wrote it")
    by: KeyName | None = Field(description="who decided or, of a charge, submitted the job; null where no key did")
    at: str
    prev_hash: str
    hash: str


def budget_of(row: sa.Row[Any]) -> Budget:
    """A row of ledger.budget."""
    balance = for_display(row)
    claim = float(row.epsilon_claim) if balance.readable else balance.epsilon
    return Budget(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        name=row.name,
        epsilon=balance.epsilon,
        epsilon_claim=claim,
        delta=balance.delta,
        unit=row.unit,
        max_records_per_user=row.max_records_per_user,
        held_out=balance.held_out,
        relation=row.relation,
        epsilon_spent=balance.epsilon_of(balance.spent),
        epsilon_reserved=balance.epsilon_of(balance.reserved),
        epsilon_left=max(0.0, balance.epsilon - balance.epsilon_of(balance.used)),
        share_spent=balance.share_of(balance.spent),
        share_reserved=balance.share_of(balance.reserved),
        share_left=balance.share_left,
        approval_above=None if row.approval_above is None else float(row.approval_above),
        queue_days=row.queue_days,
        require_intended_use=row.require_intended_use,
        reference_jobs_left=budgets.reference_jobs_left(balance, row.reference),
        frozen=balance.frozen_reason is not None,
        frozen_reason=balance.frozen_reason,
        guarantee=budgets.guarantee(claim, balance),
        reference=row.reference if balance.readable else {},
        ledger=LedgerState(
            orders=list(balance.filter.orders),
            weights=[str(w) for w in balance.filter.weights],
            cap=list(balance.cap),
            spent=list(balance.spent),
            reserved=list(balance.reserved),
            seq=row.head_seq,
            hash=row.head_hash.hex(),
        ),
    )


def entry_of(row: sa.Row[Any], budget: sa.Row[Any]) -> Entry:
    """A row of domain.access.budgets.entries."""
    after = [int(s + r) for s, r in zip(row.spent_after, row.reserved_after, strict=True)]
    return Entry(
        id=f"{row.budget_id}-{row.seq}",
        budget=row.budget_id,
        seq=row.seq,
        kind=row.kind,
        job=row.job_id,
        reservation=row.reservation_id,
        outcome=row.outcome,
        detail=row.detail,
        fence=row.fence,
        epsilon_after=for_display(budget).epsilon_of(after),
        spent_change=list(row.spent_change),
        reserved_change=[int(change) for change in row.reserved_change],
        actor=row.actor,
        by=None if row.by_key is None else KeyName(id=row.by_key, name=row.by_name or ""),
        at=row.at.isoformat(timespec="microseconds"),
        prev_hash=row.prev_hash.hex(),
        hash=row.hash.hex(),
    )


def exact(value: float) -> Decimal:
    """The decimal that a caller wrote, not the binary float behind it."""
    return Decimal(repr(value))
