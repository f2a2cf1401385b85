"""What a steward decides about a budget: its name, a lower limit, a freeze, the rules of later jobs; and its
verification."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.budgets import endpoints as budgets_api
from api.budgets.schemas import Rename, Rules
from api.dashboard.budgets import budget_page
from api.dashboard.forms import RefusedForm, filled, parse, tried
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service, Transaction
from api.fields import Id
from api.ledger import endpoints as ledger_api
from api.ledger.schemas import Freeze, LowerLimit

router = APIRouter(prefix="/budgets")
_steward = allowed("steward")
_checks = allowed("steward", "auditor")


@router.post("/{budget_id}/limit")
def lower(
    budget_id: Id, request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction
) -> Response:
    """Lower the limit, for later jobs."""
    _steward(visit.caller)
    sent = filled(posted, "epsilon", "reason")
    made = tried(
        connection,
        "limit",
        sent,
        lambda: ledger_api.limit(budget_id, parse(LowerLimit, sent), visit.caller, connection),
    )
    if isinstance(made, RefusedForm):
        return budget_page(budget_id, request, visit, service, connection, made)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}", 303)


@router.post("/{budget_id}/freeze")
def freeze(
    budget_id: Id, request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction
) -> Response:
    """Let nothing more be reserved or authorised."""
    _steward(visit.caller)
    sent = filled(posted, "reason")
    made = tried(
        connection,
        "freeze",
        sent,
        lambda: ledger_api.freeze(budget_id, parse(Freeze, sent), visit.caller, connection),
    )
    if isinstance(made, RefusedForm):
        return budget_page(budget_id, request, visit, service, connection, made)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}", 303)


@router.post("/{budget_id}/rules")
def rules(
    budget_id: Id, request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction
) -> Response:
    """Set what jobs to come wait for; an epsilon left empty means that none waits."""
    _steward(visit.caller)
    sent = filled(posted, "approval_above", "queue_days", "require_intended_use", "reason")
    made = tried(
        connection,
        "rules",
        sent,
        lambda: budgets_api.rules(budget_id, parse(Rules, {"approval_above": None} | sent), visit.caller, connection),
    )
    if isinstance(made, RefusedForm):
        return budget_page(budget_id, request, visit, service, connection, made)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}#decisions", 303)


@router.post("/{budget_id}/name")
def rename(
    budget_id: Id, request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction
) -> Response:
    """Give the budget another name."""
    _steward(visit.caller)
    sent = filled(posted, "name")
    made = tried(
        connection,
        "rename",
        sent,
        lambda: budgets_api.rename(budget_id, parse(Rename, sent), visit.caller, connection),
    )
    if isinstance(made, RefusedForm):
        return budget_page(budget_id, request, visit, service, connection, made)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}", 303)


@router.post("/{budget_id}/verify")
def verify(
    budget_id: Id, request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction
) -> Response:
    """Check the whole ledger of a budget now, and say what does not hold."""
    _checks(visit.caller)
    budget = budgets_api.show(budget_id, visit.caller, connection)
    found = ledger_api.verify(budget_id, visit.caller, service, connection)
    return page(request, "verification.html", budget=budget, found=found)
