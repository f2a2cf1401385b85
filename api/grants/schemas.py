"""Grants as they go over the wire."""

from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field

from api.fields import Body, Epsilon, IdInBody, Project, Reason
from domain.access.grants import account_of
from domain.jobs.resolving import budget_left
from ledger.budgets import Balance


class NewGrant(Body):
    """A request to let one key, or all keys of one project, use a budget."""

    key: IdInBody | None = Field(default=None, description="the id of a key; send this or project")
    project: Project | None = None
    epsilon: Epsilon | None = Field(
        default=None, description="the most that its jobs together may cost; default: the budget's limit"
    )
    approval_above: Epsilon | None = Field(
        default=None, description="a job of a larger epsilon waits for a steward, beside the budget's rule"
    )
    reason: Reason | None = None


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
    epsilon_left: float | None = Field(description="null where the grant has no sub-limit")
    approval_above: float | None
    created_by: str
    revoked_at: int | None


def grant_of(row: sa.Row[Any], held: Balance) -> Grant:
    """A row of ledger.budget_grant, with the budget that it is of."""
    account = account_of(row, held)
    return Grant(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        budget=row.budget_id,
        key=row.key_id,
        project=row.project,
        epsilon=None if row.epsilon is None else float(row.epsilon),
        epsilon_spent=held.epsilon_of(row.spent),
        epsilon_reserved=held.epsilon_of([int(x) for x in row.reserved]),
        epsilon_left=None if account is None else budget_left(account, account.used),
        approval_above=None if row.approval_above is None else float(row.approval_above),
        created_by=row.created_by,
        revoked_at=None if row.revoked_at is None else int(row.revoked_at.timestamp()),
    )
