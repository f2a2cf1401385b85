"""Grants of a budget: given and revoked by stewards, read by those who may read the budget."""

from fastapi import APIRouter

from api.auth import AnyKey, Steward
from api.deps import Service, Transaction
from api.fields import Id
from api.grants.schemas import Grant, NewGrant, grant_of
from api.pages import After, Order, Page, PageSize, fetch, page
from domain.access import budgets, grants
from ledger.budgets import for_display
from ledger.tables import budget_grant

router = APIRouter(prefix="/v1/budgets/{budget_id}/grants", tags=["grants"])


@router.post("", status_code=201)
def create(budget_id: Id, body: NewGrant, caller: Steward, service: Service, connection: Transaction) -> Grant:
    """Let one key, or all keys of one project, use the budget: up to a sub-limit, until an end, for some models and
    methods, where these are given."""
    row = grants.give(
        connection,
        caller,
        budget_id,
        key=body.key,
        project=body.project,
        terms=body.terms,
        reason=body.reason,
        models=service.models.usable,
    )
    return grant_of(row, for_display(budgets.require(connection, caller, budget_id)))


@router.get("")
def index(
    budget_id: Id,
    caller: AnyKey,
    connection: Transaction,
    after: After = None,
    limit: PageSize = 20,
    order: Order = "desc",
) -> Page[Grant]:
    """The budget's grants; to an analyst: those that let it in."""
    held = for_display(budgets.require(connection, caller, budget_id))
    scoped = grants.of_budget(caller, budget_id)
    rows, more = fetch(connection, scoped, budget_grant, after=after, limit=limit, order=order)
    return page([grant_of(row, held) for row in rows], more)


@router.delete("/{grant_id}")
def revoke(budget_id: Id, grant_id: Id, caller: Steward, connection: Transaction) -> Grant:
    """End a grant: no later job is charged to it, and who has no other sees nothing of the budget. Running jobs go
    on."""
    row = grants.revoke(connection, caller, budget_id, grant_id)
    return grant_of(row, for_display(budgets.require(connection, caller, budget_id)))
