"""Uploads from a page: the API's own upload behind a form, or behind the form's script."""

from collections.abc import Mapping
from functools import partial
from typing import IO, Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from api.auth import Caller, allowed
from api.budgets import endpoints as budgets_api
from api.budgets.schemas import Budget
from api.dashboard.files import address
from api.dashboard.render import for_script, page
from api.dashboard.session import Visit, require_token
from api.deps import Resources, Service, Transaction
from api.fields import ID_PATTERN
from api.files import endpoints as files_api
from api.files.schemas import DEFAULT_MAX_LENGTH, NewFile, PrivacyBudget
from api.files.upload import Form, receive
from domain.ingest.formats import UPLOADED
from domain.ingest.pictures.kept import DEFAULT_RESOLUTION
from dpcore.terms.kind import LABEL, USER
from dpcore.terms.tasks import COLUMNS, DEFAULT_KIND, KINDS

router = APIRouter(prefix="/files")
_steward = allowed("steward")
HEADER = "x-form-token"
"""The header in which a script sends the form's token: it is read before the body is."""
MOST_BUDGETS = 100
"""Offered to choose from; a further one is chosen by the page's address."""
_HELP = {name: field.description or "" for name, field in NewFile.model_fields.items()} | {
    f"privacy_budget.{name}": field.description or "" for name, field in PrivacyBudget.model_fields.items()
}
_COLUMNS = {name: column.help for name, column in COLUMNS.items()} | {
    LABEL: "The column with the label, if not `label`.",
    USER: "The column with the user's id, where there is one.",
}


@router.get("/new")
def new(
    request: Request,
    visit: Visit,
    service: Service,
    connection: Transaction,
    budget: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """The form; with `budget` for a file of that one."""
    _steward(visit.caller)
    asked = {} if budget is None else {"budget": budget}
    return _form(request, visit.caller, service, connection, asked)


@router.post("")
async def upload(request: Request, visit: Visit, service: Service) -> Response:
    """Take a file in, as the API would. A script sends the form's token as a header, a plain form as its first field:
    either way it is looked at before anything is kept."""
    _steward(visit.caller)

    def unlock(sent: Mapping[str, str]) -> None:
        require_token(sent, visit.session, service)

    token = request.headers.get(HEADER)
    if token is not None:
        unlock({"token": token})

    async def receive_ours(request: Request, target: IO[bytes], limit: int) -> Form:
        form = await receive(request, target, limit, unlock if token is None else None)
        form.fields = [(name, text.strip()) for name, text in form.fields if text.strip()]
        request.state.again = partial(_again, request, visit.caller, service, form)  # for the page of an error
        return form

    made = await files_api.take(request, visit.caller, service, receive_ours)
    request.scope["made"] = made.id  # for the audit log
    place = address(made)
    if not for_script(request):
        return RedirectResponse(place, 303)
    said = {
        "id": made.id,
        "budget": made.budget,
        "inherited": made.budget_inherited,
        "waits": made.question is not None,
        "page": place,
    }
    return JSONResponse(said, 201)


def _again(
    request: Request, caller: Caller, service: Resources, form: Form, problem: dict[str, Any], status: int
) -> Response:
    """The form as it was sent, with what is wrong in it or in its file."""
    with service.engine.connect() as connection:
        return _form(request, caller, service, connection, dict(form.fields), form.filename or "", problem, status)


def _form(
    request: Request,
    caller: Caller,
    service: Resources,
    connection: sa.Connection,
    asked: dict[str, str],
    filename: str = "",
    problem: dict[str, Any] | None = None,
    status: int = 200,
) -> Response:
    lines = [error for error in problem["errors"] if "line" in error] if problem else []
    return page(
        request,
        "upload.html",
        status=status,
        asked=asked,
        filename=filename,
        problem=problem,
        lines=lines,
        further=problem.get("problem_count", 0) - len(lines) if problem else 0,
        wrong=(problem["error"]["param"] or "") if problem and not lines else "",
        budgets=_budgets(caller, connection, asked.get("budget") if problem is None else None),
        kinds=KINDS,
        default_kind=DEFAULT_KIND,
        default_length=DEFAULT_MAX_LENGTH,
        default_resolution=DEFAULT_RESOLUTION,
        columns=_COLUMNS,
        sent_columns=[f"columns[{name}]" for name in _COLUMNS],
        help=_HELP,
        suffixes=list(UPLOADED),
        largest=service.settings.upload_limit,
    )


def _budgets(caller: Caller, connection: sa.Connection, chosen: str | None) -> list[Budget]:
    """The newest, and the one that was chosen. Raises NotFound for one that is not the caller's."""
    found = budgets_api.index(caller, connection, limit=MOST_BUDGETS).data
    if chosen is not None and chosen not in {budget.id for budget in found}:
        return [budgets_api.show(chosen, caller, connection), *found]
    return found
