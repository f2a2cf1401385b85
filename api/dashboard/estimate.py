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
from api.dashboard import shares
from api.dashboard.budgets import private_files
from api.dashboard.forms import SAMPLED, SAMPLED_NUMBERS, filled, measured, parse, price, sampled
from api.dashboard.methods import chosen, fields_of
from api.dashboard.render import page, sentence
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Resources, Service, Transaction
from api.files import endpoints as files_api
from api.form_text import number
from api.jobs import endpoints as jobs_api
from api.jobs.schemas import Estimate, NewJob
from domain.kit.refusals import Refusal
from domain.kit.share_words import share_of, written
from dpcore.terms.methods import method_names
from dpcore.terms.presets import DEFAULT_PRESET, PRESET_HELP, PRESETS, UNNAMED
from dpcore.terms.program import Clipping, HeadStart, Optimizer
from dpcore.terms.synthetic import PromptMessage, SyntheticPrompt

router = APIRouter()
_require = allowed("analyst")
ADVANCED = ("clipping", "clip_norm", "optimizer", "weight_averaging", "head", "views")
NUMBERS = ("steps", "batch_size", "learning_rate", *ADVANCED)
FIELDS = (
    *("training_file", "validation_file", "model", "method", "share", "epsilon", "measure", "audit", *NUMBERS),
    *("suffix", "intended_use"),
    *SAMPLED,
    *(field.name for name in method_names() for field in fields_of(name)),
)


_PLAIN = ("model", "training_file", "validation_file", "suffix", "intended_use", "allow_duplicate", "audit")
"""Fields that the form calls as a request does."""
_OF_SAMPLED = {
    **{theirs: ours for ours, theirs in SAMPLED_NUMBERS.items()},
    **dict.fromkeys(("prompts", *SyntheticPrompt.model_fields, *PromptMessage.model_fields), "synthetic_prompts"),
}
"""The form's names for the fields of `synthetic`, and for those inside its prompts."""


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
    asked.setdefault("method", DEFAULT_PRESET)
    own = {name: fields_of(name) for name in method_names() if fields_of(name)}
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
    wrong = _wrong(problem, asked["method"]) if problem else ""
    return page(
        request,
        "estimate.html",
        status=400 if problem else 200,
        asked={name: asked.get(name, "") for name in FIELDS},
        filled_in=list(asked),
        files=private_files(visit.caller, connection),
        evaluations=files_api.index(visit.caller, connection, limit=1000, purpose="evals").data,
        models=usable,
        presets=PRESETS,
        preset_help=sentence(PRESET_HELP),
        methods=method_names(),
        own=own,
        clippings=get_args(Clipping),
        optimizers=get_args(Optimizer),
        heads=get_args(HeadStart),
        sampling=wrong in SAMPLED or any(asked.get(name) for name in SAMPLED),
        advanced=wrong in ADVANCED or any(asked.get(name) for name in ADVANCED),
        made=made,
        plan=shares.plan_of(made.privacy) if made else None,
        problem=problem,
        wrong=wrong,
        variants=_variants(asked, made, visit.caller, service, connection) if made else [],
        suggestions=suggestions(asked, made.largest_epsilon, made.largest_share) if made and not made.fits else [],
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
    """Submit what was planned. The form's own number makes a second click find the first one's job, and so do the same
    words from a form that was loaded anew, unless they ask to pay again."""
    _require(visit.caller)
    request.state.asked = filled(posted, *FIELDS)  # for the page of a refusal
    body = body_of(posted)
    once = posted.get("once", "")
    key = f"dashboard-{once}" if once.isalnum() and once.isascii() and len(once) <= 64 else None
    job, _ = jobs_api.submit_once(body, visit.caller, service, connection, after_commit, key, anew=body.allow_duplicate)
    request.scope["made"] = job.id  # for the audit log
    return RedirectResponse(f"{PATH}/jobs/{job.id}", 303)


def suggestions(asked: Mapping[str, str], epsilon: float, share: float) -> list[tuple[str, str]]:
    """The form filled with the largest share, or epsilon, that fits, by its address; the share leads."""
    rest = {name: text for name, text in asked.items() if name not in ("epsilon", "share")}
    largest = []
    if share > 0:
        # To a millionth, as the service tells it, so that it fits.
        largest.append((f"{written(share)} of the budget", {"share": written(share)}))
    if epsilon > 0:
        text = f"{epsilon:.4f}".rstrip("0").rstrip(".")
        largest.append((f"epsilon {text}", {"epsilon": text}))
    return [(words, f"{PATH}/estimate?{urlencode(rest | field)}") for words, field in largest]


def body_of(values: Mapping[str, str]) -> NewJob:
    """The API's request that a filled form stands for; options of methods that were not chosen do not count. Raises
    Invalid, naming the field."""
    method = filled(values, "method").get("method", DEFAULT_PRESET)
    numbers = {name: number(text) for name, text in filled(values, *NUMBERS).items()}
    if method in PRESETS:
        block: dict[str, Any] = {"preset": method, "hyperparameters": numbers}
        method = UNNAMED
    else:
        options, further = chosen(method, values)
        block = {**options, "hyperparameters": numbers | further}
    return parse(
        NewJob,
        filled(values, *_PLAIN)
        | {"method": {"type": method, method: block}, "privacy": price(values)}
        | measured(values)
        | sampled(values),
    )


def _wrong(problem: Refusal, method: str) -> str:
    """The field of the form that a refusal is about."""
    if problem.param == "measure.share":
        return "measure"
    last = (problem.param or "").rpartition(".")[2]
    if last in _OF_SAMPLED:
        return _OF_SAMPLED[last]
    own = {field.option: field.name for field in fields_of(method)} if method in method_names() else {}
    return own.get(last, last)


def _estimate(values: Mapping[str, str], caller: Caller, service: Resources, connection: sa.Connection) -> Estimate:
    return jobs_api.estimate(body_of(values), caller, service, connection)


def _variants(
    asked: dict[str, str], made: Estimate, caller: Caller, service: Resources, connection: sa.Connection
) -> list[Variant]:
    """This plan between cheaper and dearer neighbours: what one number buys at the cost of another."""
    numbers = made.method[made.method["type"]]["hyperparameters"]
    base = asked if asked.get("share") else asked | {"epsilon": asked.get("epsilon") or f"{made.privacy.epsilon:.4g}"}
    half = {"epsilon": f"{made.privacy.epsilon / 2:.4g}"}
    if asked.get("share"):
        half = {"share": f"{share_of(asked['share']) * 50:.4g} %"}
    long, field, length = "steps", "steps", numbers["steps"]
    if made.rounds is not None:
        long, field, length = "rounds", f"{made.method['type']}.rounds", made.rounds.total
    changes: list[tuple[str, dict[str, Any]]] = [
        ("This plan", {}),
        (f"Half the {long}", {field: max(1, length // 2)}),
        (f"Double the {long}", {field: length * 2}),
        ("Half the batch", {"batch_size": max(1, numbers["batch_size"] // 2)}),
        ("Double the batch", {"batch_size": numbers["batch_size"] * 2}),
        (f"Half the {next(iter(half))}", half),
        *((f"The preset {other}", {"method": other}) for other in PRESETS if {asked["method"], other} == {*PRESETS}),
    ]
    variants = []
    for name, change in changes:
        query = base | {changed: str(value) for changed, value in change.items()}
        try:
            variants.append(Variant(name, query, _estimate(query, caller, service, connection) if change else made))
        except Refusal as error:
            variants.append(Variant(name, query, None, error.message))
    return variants
