"""Invitations to federated jobs: what was asked of other tenants, and what others ask of this one."""

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import Caller, allowed
from api.dashboard.budgets import private_files
from api.dashboard.forms import filled, parse, price
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Resources, Service, Transaction
from api.fields import Id
from api.files.schemas import File
from api.invitations import endpoints as invitations_api
from api.invitations.schemas import Acceptance, Invitation
from api.jobs.schemas import Estimate
from api.pages import After
from domain.federated.invitations import METHOD
from domain.kit.refusals import Refusal
from dpcore.terms.methods.federated_lora import Options

router = APIRouter(prefix="/invitations")
_require = allowed("steward", "analyst")
_steward = allowed("steward")
FIELDS = ("training_file", "share", "epsilon")


@router.get("")
def index(request: Request, visit: Visit, connection: Transaction, after: After = None) -> Response:
    """Invitations sent and received, newest first."""
    _require(visit.caller)
    found = invitations_api.index(visit.caller, connection, after=after)
    return page(request, "invitations.html", live=15, found=found, tenant=visit.caller.tenant_id)


@router.get("/{invitation_id}")
def show(invitation_id: Id, request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """One invitation: what is asked, and for a steward of the guest what taking part would cost."""
    _require(visit.caller)
    shown = invitations_api.show(invitation_id, visit.caller, connection)
    answers = shown.status == "open" and shown.guest == visit.caller.tenant_id and visit.may("steward")
    asked = filled(request.query_params, *FIELDS)
    made: Estimate | None = None
    problem: Refusal | None = None
    if answers and asked:
        try:
            made = _estimate(invitation_id, asked, visit.caller, service, connection)
        except Refusal as error:
            problem = error
    return page(
        request,
        "invitation.html",
        status=400 if problem else 200,
        invitation=shown,
        options=Options.model_validate(
            {name: value for name, value in shown.method[METHOD].items() if name != "hyperparameters"}
        ),
        answers=answers,
        files=_fitting(shown, visit.caller, connection) if answers else [],
        asked={name: asked.get(name, "") for name in FIELDS},
        made=made,
        problem=problem,
    )


@router.post("/{invitation_id}/accept")
def accept(
    invitation_id: Id,
    visit: Visit,
    posted: Posted,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
) -> Response:
    """Take part, as the API does."""
    _steward(visit.caller)
    body = _acceptance(filled(posted, *FIELDS))
    made = invitations_api.accept(invitation_id, body, visit.caller, service, connection, after_commit)
    return RedirectResponse(f"{PATH}/jobs/{made.job}", 303)


@router.post("/{invitation_id}/withdraw")
def withdraw(invitation_id: Id, visit: Visit, posted: Posted, connection: Transaction) -> Response:
    """Take an invitation or its acceptance back."""
    _require(visit.caller)
    invitations_api.withdraw(invitation_id, visit.caller, connection)
    return RedirectResponse(f"{PATH}/invitations/{invitation_id}", 303)


def _estimate(
    id: str, asked: dict[str, str], caller: Caller, service: Resources, connection: sa.Connection
) -> Estimate:
    return invitations_api.estimate(id, _acceptance(asked), caller, service, connection)


def _acceptance(fields: dict[str, str]) -> Acceptance:
    """The API's request that the form stands for. Raises Invalid, naming the field."""
    asked: dict[str, Any] = dict(filled(fields, "training_file"))
    return parse(Acceptance, asked | {"privacy": price(fields)})


def _fitting(shown: Invitation, caller: Caller, connection: sa.Connection) -> list[File]:
    """The guest's files that may answer it, by task and labels."""
    return [
        file
        for file in private_files(caller, connection)
        if file.task == shown.task and set(file.labels or ()) == set(shown.labels)
    ]
