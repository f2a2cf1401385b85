"""Budgets: opened by stewards, read by everyone who plans or checks jobs."""

from fastapi import APIRouter

from api.auth import AnyKey, Steward, StewardOrAuditor
from api.budgets.schemas import Budget, Entry, NewBudget, Recognised, Rename, Rules, budget_of, entry_of, exact
from api.deps import Service, Transaction
from api.fields import Id
from api.pages import After, Order, Page, PageSize, fetch, fetch_numbered, page
from domain.access import budgets
from domain.files import recognise
from domain.kit.settings import secret_bytes
from ledger import tables

router = APIRouter(prefix="/v1/budgets", tags=["budgets"])


@router.post("", status_code=201)
def create(body: NewBudget, caller: Steward, connection: Transaction) -> Budget:
    """Open a budget: an account of one protected population."""
    opened = budgets.open_new(
        connection,
        caller.tenant_id,
        name=body.name,
        epsilon=exact(body.epsilon),
        delta=exact(body.delta),
        unit=body.unit,
        max_records_per_user=body.max_records_per_user,
        held_out=exact(body.held_out),
        reference=body.reference.as_reference() if body.reference else budgets.DEFAULT_REFERENCE,
    )
    return budget_of(budgets.require(connection, caller, opened.id))


@router.get("")
def index(
    caller: AnyKey, connection: Transaction, after: After = None, limit: PageSize = 20, order: Order = "desc"
) -> Page[Budget]:
    """The budgets that the caller may read."""
    rows, more = fetch(connection, budgets.of_tenant(caller), tables.budget, after=after, limit=limit, order=order)
    return page([budget_of(row) for row in rows], more)


@router.get("/{budget_id}")
def show(budget_id: Id, caller: AnyKey, connection: Transaction) -> Budget:
    """One budget with its balance."""
    return budget_of(budgets.require(connection, caller, budget_id))


@router.get("/{budget_id}/recognition")
def recognition(budget_id: Id, caller: Steward, service: Service, connection: Transaction) -> Page[Recognised]:
    """How the records of each file that the budget ever had are recognised when they come again, the newest file first.
    For stewards alone."""
    budgets.require(connection, caller, budget_id)
    found = recognise.known(connection, budget_id, secret_bytes(service.settings.fingerprint_key))
    return page(
        [Recognised(id=one.file_id, by=one.by, users=one.users, elsewhere=one.elsewhere) for one in found], False
    )


@router.post("/{budget_id}/rules")
def rules(budget_id: Id, body: Rules, caller: Steward, connection: Transaction) -> Budget:
    """Set what jobs to come wait for and must say, and how long a job may stay unstarted; what is left out stays as it
    was. It becomes an entry of the ledger."""
    budgets.set_rules(connection, caller, budget_id, body.changes, body.reason)
    return budget_of(budgets.require(connection, caller, budget_id))


@router.post("/{budget_id}/rename")
def rename(budget_id: Id, body: Rename, caller: Steward, connection: Transaction) -> Budget:
    """Give the budget another name. It is for people: no entry of the ledger, and nothing that is promised, speaks of
    it."""
    budgets.rename(connection, caller, budget_id, body.name)
    return budget_of(budgets.require(connection, caller, budget_id))


@router.get("/{budget_id}/entries")
def entries(
    budget_id: Id,
    caller: StewardOrAuditor,
    connection: Transaction,
    after: After = None,
    limit: PageSize = 20,
    order: Order = "asc",
) -> Page[Entry]:
    """The budget's ledger, oldest line first."""
    budget = budgets.require(connection, caller, budget_id)
    scoped = budgets.entries(budget)
    rows, more = fetch_numbered(
        connection,
        scoped,
        scoped.selected_columns.seq,
        prefix=f"{budget.id}-",
        after=after,
        limit=limit,
        order=order,
    )
    return page([entry_of(row, budget) for row in rows], more)
