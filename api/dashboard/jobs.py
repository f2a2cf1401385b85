"""Jobs: how far they are, what they cost, and what they released."""

import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, get_args

from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel

from api.auth import allowed
from api.dashboard import pictures, shares
from api.dashboard.estimate import NUMBERS
from api.dashboard.forms import SAMPLED_NUMBERS, filled, parse, prompt_line
from api.dashboard.methods import texts
from api.dashboard.render import origin, page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service, Transaction
from api.download import attachment
from api.errors import HttpError
from api.fields import Id
from api.files import endpoints as files_api
from api.jobs import endpoints as jobs_api
from api.jobs.schemas import Approval, Event, Job, Rejection, event_of
from api.jobs.stream import fetch_events
from api.ledger import endpoints as ledger_api
from api.pages import After
from api.statements import endpoints as statements_api
from domain.jobs.life import PAUSED, PAUSING, WAITING
from domain.kit.purposes import RESULT
from domain.kit.share_words import written
from domain.kit.statuses import OPEN
from dpcore.terms.methods import get_method, method_names
from dpcore.terms.synthetic import SyntheticPrompt

router = APIRouter(prefix="/jobs")
_require = allowed("steward", "analyst")
_steward = allowed("steward")
EVENTS = 100


@router.get("")
def index(request: Request, visit: Visit, service: Service, connection: Transaction, after: After = None) -> Response:
    """The caller's jobs, newest first."""
    _require(visit.caller)
    found = jobs_api.index(request, visit.caller, service, connection, after=after, limit=20)
    live = 5 if any(job.status in OPEN for job in found.data) else 15
    return page(request, "jobs.html", live=live, found=found)


@router.get("/{job_id}")
def show(job_id: Id, request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """One job, from its plan to its receipt."""
    _require(visit.caller)
    job = jobs_api.show(job_id, visit.caller, service, connection)
    open = job.status in OPEN
    body = request_of(job)
    rows, _ = fetch_events(connection, job_id, limit=EVENTS, order="asc")
    return page(
        request,
        "job.html",
        live=2 if job.status == "running" else 4 if open else 0,
        typing=job.status_detail == WAITING and visit.may("steward"),
        job=job,
        plan=shares.plan_of(job.privacy),
        rungs=pictures.ladder(job.quality),
        open=open,
        waits=job.status_detail == WAITING,
        timeline=timeline([event_of(row, len(job.privacy.phases)) for row in rows]),
        results=[files_api.show(id, visit.caller, connection) for id in job.result_files],
        receipts=ledger_api.job_receipts(job_id, visit.caller, service, connection),
        paused=job.status_detail in (PAUSED, PAUSING),
        curl=curl(origin(request), body) if body else "",
        python=python(origin(request), body) if body else "",
        again=query_of(body),
    )


@router.post("/{job_id}/cancel")
def cancel(job_id: Id, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Stop a job, as the API does."""
    _require(visit.caller)
    jobs_api.cancel(job_id, visit.caller, service, connection)
    return RedirectResponse(f"{PATH}/jobs/{job_id}", 303)


@router.post("/{job_id}/pause")
def pause(job_id: Id, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Hold a job, as the API does."""
    _require(visit.caller)
    jobs_api.pause(job_id, visit.caller, service, connection)
    return RedirectResponse(f"{PATH}/jobs/{job_id}", 303)


@router.post("/{job_id}/resume")
def resume(
    job_id: Id,
    visit: Visit,
    posted: Posted,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
) -> Response:
    """Let a paused job go on."""
    _require(visit.caller)
    jobs_api.resume(job_id, visit.caller, service, connection, after_commit)
    return RedirectResponse(f"{PATH}/jobs/{job_id}", 303)


@router.post("/{job_id}/approve")
def approve(
    job_id: Id,
    visit: Visit,
    posted: Posted,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
) -> Response:
    """Let a job that waits go to the workers."""
    _steward(visit.caller)
    body = parse(Approval, filled(posted, "reason"))
    jobs_api.approve(job_id, visit.caller, service, connection, after_commit, body)
    return RedirectResponse(f"{PATH}/jobs/{job_id}", 303)


@router.post("/{job_id}/reject")
def reject(job_id: Id, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Cancel a job that waits; whoever submitted it sees why."""
    _steward(visit.caller)
    jobs_api.reject(job_id, parse(Rejection, filled(posted, "reason")), visit.caller, service, connection)
    return RedirectResponse(f"{PATH}/jobs/{job_id}", 303)


@router.get("/{job_id}/adapter")
def adapter(job_id: Id, request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The adapter, for a browser."""
    _require(visit.caller)
    return jobs_api.adapter(job_id, visit.caller, request, service, connection)


@router.get("/{job_id}/receipts.json")
def receipts(job_id: Id, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The job's receipts, to be kept."""
    _require(visit.caller)
    found = ledger_api.job_receipts(job_id, visit.caller, service, connection)
    headers = {"content-disposition": attachment(f"{job_id}-receipts.json")}
    return JSONResponse([receipt.model_dump() for receipt in found], headers=headers)


@router.get("/{job_id}/statement")
def statement(job_id: Id, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The job's statement, a page of its own."""
    _require(visit.caller)
    found = statements_api.of_job(job_id, visit.caller, service, connection, "html")
    assert isinstance(found, Response)
    return found


@router.get("/{job_id}/evidence.zip")
def evidence(job_id: Id, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The statement with all that it rests on, signed."""
    _require(visit.caller)
    return statements_api.job_evidence(job_id, visit.caller, service, connection)


@router.get("/{job_id}/results/{file_id}")
def result(
    job_id: Id, file_id: Id, request: Request, visit: Visit, service: Service, connection: Transaction
) -> Response:
    """One of the job's released files; rows of datasets are not to be had here."""
    _require(visit.caller)
    job = jobs_api.show(job_id, visit.caller, service, connection)
    if file_id not in job.result_files:
        raise HttpError(404, "not_found", f"no such {RESULT} file")
    return files_api.content(file_id, visit.caller, request, service, connection)


def timeline(events: Sequence[Event]) -> list[tuple[Event, list[Event]]]:
    """What happened, in order; chunks of steps that follow each other are one item, the last of them before all."""
    items: list[tuple[Event, list[Event]]] = []
    for chunks, run in groupby(events, lambda event: event.type == "metrics"):
        found = list(run)
        items += [(found[-1], found)] if chunks else [(event, []) for event in found]
    return items


def request_of(job: Job) -> dict[str, Any]:
    """The body that asks for the same job again, at the price that was named. Of a job that cannot be read there is
    none, nor of a silo's: it is submitted with its federated job."""
    if job.method["type"] not in method_names() or (job.federated and job.silos is None):
        return {}
    method = get_method(job.method["type"])
    resolved = job.method[job.method["type"]]
    # What is as usual is left out: an option may be refused beside another, though it has its usual value.
    options = _unusual(method.Options, resolved)
    options["hyperparameters"] = _unusual(method.Request, resolved["hyperparameters"])
    optional = {
        "validation_file": job.validation_file,
        "suffix": job.suffix,
        "intended_use": job.intended_use,
        "metadata": job.metadata or None,
        "synthetic": None if job.synthetic is None else job.synthetic.model_dump(mode="json", exclude_none=True),
        "measure": _measure(job),
        "audit": job.audit or None,
    }
    return {
        "model": job.model,
        "training_file": job.training_file,
        "method": {"type": job.method["type"], job.method["type"]: options},
        "privacy": _price(job),
        "seed": job.seed,
        **{name: value for name, value in optional.items() if value is not None},
    }


def query_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the estimate's form, from `request_of`: everything but seed and metadata, which it has no fields
    for."""
    if not body:
        return {}
    method = body["method"]["type"]
    options = body["method"][method]
    numbers = options["hyperparameters"]
    return {
        **{
            name: body.get(name, "") for name in ("training_file", "validation_file", "model", "suffix", "intended_use")
        },
        "method": method,
        **{name: written(amount) if name == "share" else amount for name, amount in body["privacy"].items()},
        **({"measure": written(body["measure"]["share"])} if "measure" in body else {}),
        **({"audit": "true"} if body.get("audit") else {}),
        **_sampled(body.get("synthetic")),
        **{name: numbers[name] for name in NUMBERS if name in numbers},
        **texts(method, options, numbers),
    }


def _sampled(wanted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The form's fields of sampled text."""
    if wanted is None:
        return {}
    prompts = [prompt_line(_unusual(SyntheticPrompt, prompt)) for prompt in wanted.get("prompts") or []]
    fields = {ours: wanted[theirs] for ours, theirs in SAMPLED_NUMBERS.items() if theirs in wanted}
    return fields | ({"synthetic_prompts": "\n".join(prompts)} if prompts else {})


def _unusual(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are not the fields' defaults, of fields that take others."""
    fields = {name: field for name, field in model.model_fields.items() if name in values}
    usual = {name for name, field in fields.items() if values[name] == field.default}
    fixed = {name for name, field in fields.items() if get_args(field.annotation) == (field.default,)}
    return {name: values[name] for name in fields if name not in usual | fixed}


def _price(job: Job) -> dict[str, float]:
    """As it was asked for; of a job that named nothing, or does not say what, the epsilon that it costs."""
    privacy = job.privacy
    if privacy.asked is not None and privacy.asked_for is not None:
        return {privacy.asked: privacy.asked_for}
    if privacy.asked == "share" and privacy.share is not None:
        return {"share": privacy.share}
    return {"epsilon": privacy.epsilon}


def _measure(job: Job) -> dict[str, float] | None:
    """At the share that it takes; None where nothing is measured."""
    planned = job.privacy.measure
    return None if planned is None or planned.share is None else {"share": planned.share}


def curl(base: str, body: Mapping[str, Any]) -> str:
    """A shell command; the key stays in the environment."""
    return (
        f"curl {base}/v1/fine_tuning/jobs \\\n"
        '  -H "Authorization: Bearer $TACIT_KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, indent=2))}"
    )


_STOCK = {"model", "training_file", "validation_file", "method", "seed", "suffix", "metadata"}
"""What the package's own `create` takes of what is asked for here."""


def python(base: str, body: Mapping[str, Any]) -> str:
    """The same with the `openai` package; what privacy adds goes through extra_body."""
    known = {name: value for name, value in body.items() if name in _STOCK}
    more = {name: value for name, value in body.items() if name not in _STOCK}
    arguments = [f"    {name}={_literal(value)}," for name, value in known.items()]
    return "\n".join(
        [
            "import os",
            "from openai import OpenAI",
            "",
            f'client = OpenAI(base_url="{base}/v1", api_key=os.environ["TACIT_KEY"])',
            "job = client.fine_tuning.jobs.create(",
            *arguments,
            f"    extra_body={_literal(more)},",
            ")",
        ]
    )


def _literal(value: Any, depth: int = 1) -> str:
    """A Python literal, a line for each member."""
    if not isinstance(value, dict) or not value:
        return repr(value)
    inner = "    " * (depth + 1)
    members = "".join(f"{inner}{name!r}: {_literal(member, depth + 1)},\n" for name, member in value.items())
    return "{\n" + members + "    " * depth + "}"
