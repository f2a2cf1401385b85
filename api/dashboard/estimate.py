"""The estimate: what a job would cost, and how its numbers trade, before anything is spent."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlencode

import sqlalchemy as sa
from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import Caller, allowed
from api.dashboard.budgets import private_files
from api.dashboard.forms import filled, parse
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Resources, Service, Transaction
from api.files import endpoints as files_api
from api.form_text import number
from api.jobs import endpoints as jobs_api
from api.jobs.schemas import Estimate, NewJob
from domain.kit.refusals import Refusal
from dpcore.terms.methods import DEFAULT_METHOD, method_names
from dpcore.terms.program import Clipping, Optimizer

router = APIRouter()
_require = allowed("analyst")
ADVANCED = ("clipping", "clip_norm", "optimizer", "weight_averaging")
NUMBERS = ("steps", "batch_size", "learning_rate", *ADVANCED)
FIELDS = ("training_file", "validation_file", "model", "method", "epsilon", *NUMBERS, "suffix")


@dataclass(frozen=True)
class Variant:
    """The same job with other numbers; `why` says what is in the way where there is no estimate."""

    name: str
    query: dict[str, str]
    estimate: Estimate | None
    why: str = ""


@router.get("/estimate")
def plan(request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The form, and the plan once a file is chosen. Nothing is charged, and no row is looked at."""
    _require(visit.caller)
    asked = filled(request.query_params, *FIELDS)
    asked.setdefault("method", DEFAULT_METHOD)
    usable = service.models.usable
    if usable:
        asked.setdefault("model", service.default_model.name)
    made: Estimate | None = None
    problem: Refusal | None = None
    if asked.get("training_file"):
        try:
            made = _estimate(asked, visit.caller, service, connection)
        except Refusal as error:
            problem = error
    wrong = (problem.param or "").rpartition(".")[2] if problem else ""
    return page(
        request,
        "estimate.html",
        status=400 if problem else 200,
        asked={name: asked.get(name, "") for name in FIELDS},
        files=private_files(visit.caller, connection),
        evaluations=files_api.index(visit.caller, connection, limit=1000, purpose="evals").data,
        models=usable,
        methods=method_names(),
        clippings=get_args(Clipping),
        optimizers=get_args(Optimizer),
        advanced=wrong in ADVANCED or any(asked.get(name) for name in ADVANCED),
        made=made,
        problem=problem,
        wrong=wrong,
        variants=_variants(asked, made, visit.caller, service, connection) if made else [],
        suggestion=suggestion(asked, made.largest_epsilon) if made and not made.fits else "",
        once=secrets.token_hex(16),
    )


@router.post("/estimate")
def submit(
    request: Request,
    visit: Visit,
    posted: Posted,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
) -> Response:
    """Submit what was planned. The form's own number makes a second click find the first one's job."""
    _require(visit.caller)
    request.state.asked = filled(posted, *FIELDS)  # for the page of a refusal
    body = body_of(posted)
    once = posted.get("once", "")
    key = f"dashboard-{once}" if once.isalnum() and once.isascii() and len(once) <= 64 else None
    job = jobs_api.create(body, visit.caller, service, connection, after_commit, Response(), key)
    return RedirectResponse(f"{PATH}/jobs/{job.id}", 303)


def suggestion(asked: Mapping[str, str], largest: float) -> str:
    """The address of the form filled with the largest epsilon that fits; empty where none does."""
    return f"{PATH}/estimate?{urlencode({**asked, 'epsilon': f'{largest:.4f}'})}" if largest > 0 else ""


def body_of(values: Mapping[str, str]) -> NewJob:
    """The API's request that a filled form stands for. Raises Invalid, naming the field."""
    asked = filled(values, *FIELDS)
    method = asked.get("method", DEFAULT_METHOD)
    options = {"hyperparameters": {name: number(text) for name, text in filled(values, *NUMBERS).items()}}
    return parse(
        NewJob,
        filled(values, "model", "training_file", "validation_file", "suffix", "allow_duplicate")
        | {"method": {"type": method, method: options}, "privacy": filled(values, "epsilon")},
    )


def _estimate(values: Mapping[str, str], caller: Caller, service: Resources, connection: sa.Connection) -> Estimate:
    return jobs_api.estimate(body_of(values), caller, service, connection)


def _variants(
    asked: dict[str, str], made: Estimate, caller: Caller, service: Resources, connection: sa.Connection
) -> list[Variant]:
    """This plan between cheaper and dearer neighbours: what one number buys at the cost of another."""
    numbers = made.method[made.method["type"]]["hyperparameters"]
    epsilon = asked.get("epsilon") or f"{made.privacy.epsilon:.4g}"
    base = asked | {"epsilon": epsilon}
    changes: list[tuple[str, dict[str, Any]]] = [
        ("This plan", {}),
        ("Half the steps", {"steps": max(1, numbers["steps"] // 2)}),
        ("Double the steps", {"steps": numbers["steps"] * 2}),
        ("Half the batch", {"batch_size": max(1, numbers["batch_size"] // 2)}),
        ("Double the batch", {"batch_size": numbers["batch_size"] * 2}),
        ("Half the epsilon", {"epsilon": f"{made.privacy.epsilon / 2:.4g}"}),
    ]
    variants = []
    for name, change in changes:
        query = base | {field: str(value) for field, value in change.items()}
        try:
            variants.append(Variant(name, query, _estimate(query, caller, service, connection) if change else made))
        except Refusal as error:
            variants.append(Variant(name, query, None, error.message))
    return variants
