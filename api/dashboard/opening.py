"""Opening a budget. The form can be filled by its address, so that nothing typed is lost over a log-in."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.budgets import endpoints as budgets_api
from api.budgets.schemas import NewBudget
from api.dashboard.forms import RefusedForm, filled, parse, tried
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Transaction

router = APIRouter(prefix="/budgets")
_steward = allowed("steward")
REFERENCE = ("sample_rate", "steps", "noise_multiplier")
FIELDS = ("name", "epsilon", "delta", "unit", "max_records_per_user", "held_out", *REFERENCE)


@router.get("/new")
def form(request: Request, visit: Visit) -> Response:
    """The form."""
    _steward(visit.caller)
    return _page(request, RefusedForm("open", filled(request.query_params, *FIELDS), "", "", 200))


@router.post("/new")
def submit(request: Request, visit: Visit, posted: Posted, connection: Transaction) -> Response:
    """Open what was described."""
    _steward(visit.caller)
    sent = filled(posted, *FIELDS)
    made = tried(connection, "open", sent, lambda: budgets_api.create(_budget_of(sent), visit.caller, connection))
    if isinstance(made, RefusedForm):
        return _page(request, made)
    request.scope["made"] = made.id  # for the audit log
    return RedirectResponse(f"{PATH}/budgets/{made.id}", 303)


def _budget_of(sent: dict[str, str]) -> NewBudget:
    """The API's request that the form stands for. Raises Invalid, naming the field."""
    values: dict[str, Any] = {name: text for name, text in sent.items() if name not in REFERENCE}
    reference = filled(sent, *REFERENCE)
    return parse(NewBudget, values | ({"reference": reference} if reference else {}))


def _page(request: Request, refused: RefusedForm) -> Response:
    return page(request, "budget-new.html", status=refused.status, refused=refused)
