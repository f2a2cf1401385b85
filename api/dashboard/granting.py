"""Grants on a budget's page: whom it may be given to, and the forms that give and revoke."""

from datetime import UTC, date, datetime, time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.dashboard.budgets import budget_page
from api.dashboard.forms import RefusedForm, filled, parse, price, tried
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service, Transaction
from api.fields import Id
from api.grants import endpoints as grants_api
from api.grants.schemas import NewGrant
from domain.kit.refusals import Invalid

router = APIRouter(prefix="/budgets")
_steward = allowed("steward")
FIELDS = ("key", "project", "share", "epsilon", "until", "approval_above", "models", "methods", "most_steps", "reason")


@router.post("/{budget_id}/grants")
def grant(
    budget_id: Id, request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction
) -> Response:
    """Let a key or a project use the budget."""
    _steward(visit.caller)
    sent = filled(posted, *FIELDS)
    made = tried(
        connection,
        "grant",
        sent,
        lambda: grants_api.create(budget_id, _grant_of(sent), visit.caller, service, connection),
    )
    if isinstance(made, RefusedForm):
        return budget_page(budget_id, request, visit, service, connection, made)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}#grants", 303)


@router.post("/{budget_id}/grants/{grant_id}/revoke")
def revoke(budget_id: Id, grant_id: Id, visit: Visit, posted: Posted, connection: Transaction) -> Response:
    """End a grant for jobs to come."""
    _steward(visit.caller)
    grants_api.revoke(budget_id, grant_id, visit.caller, connection)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}#grants", 303)


def _grant_of(sent: dict[str, str]) -> NewGrant:
    """The API's request that the form stands for. Raises Invalid, naming the field."""
    values: dict[str, Any] = filled(sent, "key", "project", "approval_above", "most_steps", "reason") | price(sent)
    for name in ("models", "methods"):
        if name in sent:
            values[name] = [one for part in sent[name].split(",") if (one := part.strip())]
    if "until" in sent:
        values["expires_at"] = _end_of(sent["until"])
    return parse(NewGrant, values)


def _end_of(day: str) -> int:
    """Unix seconds of a day's end."""
    try:
        last = date.fromisoformat(day)
    except ValueError:
        message = "until: write a day as 2027-01-31; the grant ends with it"
        raise Invalid(message, code="invalid_request", param="until") from None
    return int(datetime.combine(last, time(23, 59, 59), UTC).timestamp())
