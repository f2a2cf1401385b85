"""Grants as they go over the wire."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from api.budgets.schemas import exact
from api.fields import Body, Epsilon, IdInBody, Name, Project, Reason, Share
from domain.access.grants import held_grant
from domain.jobs.resolving import budget_left
from ledger.budgets import Balance
from ledger.grants import GrantTerms

LAST_SECOND = 253402300799
"""Of the year 9999."""
Seconds = Annotated[int, Field(ge=1, le=LAST_SECOND)]
Names = Annotated[list[Name], Field(min_length=1, max_length=100)]


class NewGrant(Body):
    """A request to let one key, or all keys of one project, use a budget."""

    key: IdInBody | None = Field(default=None, description="the id of a key; send this or project")
    project: Project | None = Field(default=None, description="one that some key has")
    epsilon: Epsilon | None = Field(
        default=None, description="the most that its jobs together may cost; default: the budget's limit"
    )
    share: Share | None = Field(
        default=None,
        description="in place of epsilon: of the budget's cap at its main order, where its jobs' shares add up; it "
        "moves with the budget's limit",
    )
    approval_above: Epsilon | None = Field(
        default=None, description="a job of a larger epsilon waits for a steward, beside the budget's rule"
    )
    expires_at: Seconds | None = Field(
        default=None, description="unix seconds; from then on it admits no job and shows nothing, as if revoked"
    )
    models: Names | None = Field(default=None, description="the base models that its jobs may train; default: all")
    methods: Names | None = Field(default=None, description="the methods that its jobs may use; default: all")
    most_steps: int | None = Field(default=None, ge=1, le=10_000_000, description="of a job, all phases together")
    reason: Reason | None = None

    @field_validator("share")
    @classmethod
    def _alone(cls, share: float | None, others: ValidationInfo) -> float | None:
        if share is not None and others.data.get("epsilon") is not None:
            raise ValueError("a grant is limited by an epsilon or by a share: send one of them")
        return share

    @property
    def terms(self) -> GrantTerms:
        """What the grant allows, as the ledger takes it."""
        return GrantTerms(
            epsilon=None if self.epsilon is None else exact(self.epsilon),
            share=None if self.share is None else exact(self.share),
            approval_above=None if self.approval_above is None else exact(self.approval_above),
            expires_at=None if self.expires_at is None else datetime.fromtimestamp(self.expires_at, UTC),
            models=self.models,
            methods=self.methods,
            most_steps=self.most_steps,
        )


class Grant(BaseModel):
    """A right to use a budget. With a sub-limit it has a balance of its own, held by the database like the budget's."""

    id: str
    object: Literal["budget.grant"] = "budget.grant"
    created_at: int
    budget: str
    key: str | None
    project: str | None
    epsilon: float | None
    epsilon_spent: float
    epsilon_reserved: float
    epsilon_left: float | None = Field(description="null where the grant has no sub-limit, or a share as one")
    share: float | None = Field(description="of the budget's cap at its main order; null where no share limits it")
    share_spent: float | None = Field(
        description="of the budget's cap at its main order, rounded up; null where a lowered limit leaves that nothing"
    )
    share_reserved: float | None = Field(description="the same of what unfinished jobs may still take")
    share_left: float | None = Field(
        description="of the sub-limit, as a part of the budget's cap, rounded down; the budget may have less left. "
        "null where the grant has no sub-limit"
    )
    approval_above: float | None
    expires_at: int | None
    models: list[str] | None = Field(description="that its jobs may train; null: all")
    methods: list[str] | None = Field(description="that its jobs may use; null: all")
    most_steps: int | None
    created_by: str
    revoked_at: int | None


def grant_of(row: sa.Row[Any], held: Balance) -> Grant:
    """A row of ledger.budget_grant, with the budget that it is of."""
    grant = held_grant(row, held)
    account = grant.account
    spent, reserved = tuple(row.spent), tuple(int(x) for x in row.reserved)
    return Grant(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        budget=row.budget_id,
        key=row.key_id,
        project=row.project,
        epsilon=None if row.epsilon is None else float(row.epsilon),
        epsilon_spent=held.epsilon_of(spent),
        epsilon_reserved=held.epsilon_of(reserved),
        epsilon_left=None if account is None or row.epsilon is None else budget_left(account, account.used),
        share=None if row.share is None else float(row.share),
        share_spent=held.share_of(spent),
        share_reserved=held.share_of(reserved),
        share_left=grant.share_left(held),
        approval_above=grant.approval_above,
        expires_at=None if row.expires_at is None else int(row.expires_at.timestamp()),
        models=row.models,
        methods=row.methods,
        most_steps=row.most_steps,
        created_by=row.created_by,
        revoked_at=None if row.revoked_at is None else int(row.revoked_at.timestamp()),
    )
