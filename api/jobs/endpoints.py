"""Fine-tuning jobs: planned and submitted by analysts."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, BackgroundTasks, Header, Query, Request, Response

from api.auth import Analyst, Caller, Steward, StewardOrAnalyst
from api.deps import Resources, Service, Transaction
from api.download import send_blob
from api.fields import Id
from api.jobs import idempotency
from api.jobs.over_users import Cohort, Population
from api.jobs.schemas import (
    Approval,
    Estimate,
    Event,
    Job,
    NewJob,
    Rejection,
    ReleasedCheckpoint,
    estimate_of,
    event_of,
    job_of,
)
from api.jobs.stream import STREAM_ANSWERS, event_stream, fetch_events
from api.pages import After, Order, Page, PageSize, fetch, page, unknown_cursor
from domain.access import quotas
from domain.federated import cancelling
from domain.federated.invitations import METHOD as FEDERATED
from domain.federated.reading import parts
from domain.federated.submitting import submit_federated
from domain.files.binding import open_file
from domain.jobs import acting, life, reading
from domain.jobs.hints import HINT_ERRORS, send_hint
from domain.jobs.progress import estimated_finishes
from domain.jobs.resolving import plan_job
from domain.jobs.submit import submit
from domain.kit.ids import new_id
from domain.kit.tables import job
from ledger.tables import work

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[\x21-\x7e]{1,200}$", description="the same key and request again: the same job, charged once"),
]
Retries = Annotated[str, Header(alias="x-stainless-retry-count", include_in_schema=False)]
"""How often the `openai` packages have sent a request already, by themselves."""


@router.post("/estimate")
def estimate(
    body: NewJob,
    caller: Analyst,
    service: Service,
    connection: Transaction,
    population: Population = None,
    cohort: Cohort = None,
) -> Estimate:
    """The plan and its price. Free: nothing is charged, and only public values are read."""
    models = service.models
    planned = plan_job(connection, caller, models, body.wanted())
    return estimate_of(planned, models.usable[planned.wanted.model].facts, population, cohort)


@router.post("", status_code=201)
def create(
    body: NewJob,
    caller: Analyst,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    retries: Retries = "0",
) -> Job:
    """Submit a job. Its price is reserved in the ledger in the same transaction, or it is refused.

    The same request of the same API key within five minutes, while its job has not ended, is that job, and the header
    `idempotent-replayed` says so: what a lost answer makes a client send again is not paid for twice. Who means another
    job sends an `Idempotency-Key`, or `allow_duplicate: true`."""
    anew = idempotency_key is not None or (body.allow_duplicate and retries == "0")
    made, again = submit_once(body, caller, service, connection, after_commit, idempotency_key, anew=anew)
    if again:
        response.headers["idempotent-replayed"] = "true"
    return made


def submit_once(
    body: NewJob,
    caller: Caller,
    service: Resources,
    connection: sa.Connection,
    after_commit: BackgroundTasks,
    key: str | None,
    *,
    anew: bool,
) -> tuple[Job, bool]:
    """The job, and whether it was there before: under this key or, unless another one is meant, as what was asked for
    shortly before in the same words."""
    job_id = new_id("ftjob", "-")
    known = None if key is None else idempotency.claim(connection, caller, key, body, job_id)
    if known is None and not (anew and key):
        known = idempotency.repeated(connection, caller, body, job_id, anew=anew)
        if known is not None and key is not None:
            idempotency.forget(connection, caller, key)
    if known is not None:
        return _shown(connection, caller, service, known), True
    quotas.require_few_jobs(connection, caller.tenant_id, service.settings.job_quota)
    planned = plan_job(connection, caller, service.models, body.wanted())
    insert = submit_federated if planned.wanted.method == FEDERATED else submit
    insert(connection, planned, service.store, job_id=job_id, viewer=caller, check_first=service.check_first)
    made = _shown(connection, caller, service, job_id)
    after_commit.add_task(service.keeper.tell_witness)
    if made.status_detail != life.WAITING:
        after_commit.add_task(_hint, service, job_id)
    return made.model_copy(update={"finished_twin": planned.finished_twin}), False


@router.get("")
def index(
    request: Request,
    caller: StewardOrAnalyst,
    service: Service,
    connection: Transaction,
    after: After = None,
    limit: PageSize = 20,
    order: Order = "desc",
    status_detail: Annotated[
        life.Detail | None, Query(description="only those, such as `waiting_for_approval`: what a steward decides on")
    ] = None,
) -> Page[Job]:
    """The jobs that the caller may see, newest first; `metadata[key]=value` keeps those with it, `metadata=null` those
    with none."""
    scoped = reading.page_of_tenant(caller)
    if status_detail is not None:
        scoped = scoped.where(job.c.status_detail == status_detail)
    if status_detail in life.HELD:  # in the text of the statement, where the index of queued jobs can be seen
        scoped = scoped.where(job.c.status == sa.literal("queued", literal_execute=True))
    wanted = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]") and "\0" not in name + value
    }
    if wanted:
        scoped = scoped.where(job.c.metadata.contains(wanted))
    elif request.query_params.get("metadata") == "null":
        scoped = scoped.where(job.c.metadata == sa.cast({}, job.c.metadata.type))
    rows, more = fetch(connection, scoped, job, after=after, limit=limit, order=order)
    return page(_jobs_of(connection, caller, service, rows), more)


@router.get("/{job_id}")
def show(job_id: Id, caller: StewardOrAnalyst, service: Service, connection: Transaction) -> Job:
    """One job."""
    return _shown(connection, caller, service, job_id)


@router.post("/{job_id}/cancel")
def cancel(job_id: Id, caller: StewardOrAnalyst, service: Service, connection: Transaction) -> Job:
    """Stop a job: steps that were authorised stay charged, the rest goes back to the budget. A federated one stops with
    all its silos."""
    cancelling.cancel(connection, caller, job_id)
    return _shown(connection, caller, service, job_id)


@router.post("/{job_id}/pause")
def pause(job_id: Id, caller: StewardOrAnalyst, service: Service, connection: Transaction) -> Job:
    """Hold a job. Its worker keeps a checkpoint and lets go; nothing is settled, and what is reserved stays reserved,
    for 7 days at most: then the job is cancelled. `status` is `queued` and `status_detail` `paused`; `pausing` while a
    worker still has it."""
    acting.pause(connection, caller, job_id)
    return _shown(connection, caller, service, job_id)


@router.post("/{job_id}/resume")
def resume(
    job_id: Id, caller: StewardOrAnalyst, service: Service, connection: Transaction, after_commit: BackgroundTasks
) -> Job:
    """Queue a paused job again: it goes on from its checkpoint, with fresh draws, within what it has reserved."""
    if acting.resume(connection, caller, job_id):
        after_commit.add_task(_hint, service, job_id)
    return _shown(connection, caller, service, job_id)


@router.post("/{job_id}/approve")
def approve(
    job_id: Id,
    caller: Steward,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
    body: Approval | None = None,
) -> Job:
    """Release a job that waits for approval to the workers. Not by the key that submitted it."""
    acting.approve(connection, caller, job_id, None if body is None else body.reason)
    after_commit.add_task(service.keeper.tell_witness)
    after_commit.add_task(_hint, service, job_id)
    return _shown(connection, caller, service, job_id)


@router.post("/{job_id}/reject")
def reject(job_id: Id, body: Rejection, caller: Steward, service: Service, connection: Transaction) -> Job:
    """Cancel a job that waits for approval; all that it reserved goes back."""
    acting.reject(connection, caller, job_id, body.reason)
    return _shown(connection, caller, service, job_id)


@router.get("/{job_id}/events", response_model=Page[Event], responses=STREAM_ANSWERS)
def list_events(
    job_id: Id,
    caller: StewardOrAnalyst,
    service: Service,
    connection: Transaction,
    after: After = None,
    limit: PageSize = 20,
    order: Order = "desc",
    stream: Annotated[bool, Query(description="the same as `Accept: text/event-stream`")] = False,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[str | None, Header(description="in a stream: go on right after this event")] = None,
) -> Page[Event] | Response:
    """What has happened to a job, newest first. As a stream: oldest first, from the beginning or right after
    `Last-Event-ID` (or `after`), each event as it happens, until the job has ended; then 204 for whoever asks again."""
    job = reading.require(connection, caller, job_id)
    if stream or "text/event-stream" in accept:
        return event_stream(connection, service, caller, job, last_event_id or after)
    rows, more = fetch_events(connection, job_id, after=after, limit=limit, order=order)
    return page([event_of(row, len(job.steps_by_phase)) for row in rows], more)


@router.get("/{job_id}/checkpoints")
def checkpoints(
    job_id: Id, caller: StewardOrAnalyst, connection: Transaction, after: After = None, limit: PageSize = 20
) -> Page[ReleasedCheckpoint]:
    """Always empty: only a finished job releases weights."""
    reading.require(connection, caller, job_id)
    if after is not None:
        raise unknown_cursor()
    return page([], False)


@router.head("/{job_id}/adapter", include_in_schema=False)
@router.get("/{job_id}/adapter", response_class=Response)
def adapter(
    job_id: Id, caller: StewardOrAnalyst, request: Request, service: Service, connection: Transaction
) -> Response:
    """The adapter as a ZIP of its PEFT folder; `x-content-sha256` is the sha256 of the whole."""
    row = reading.adapter(connection, caller, job_id)
    blob = open_file(connection, service.store, row)
    return send_blob(request, blob, sha256=row.sha256, filename=f"{job_id}.zip", media_type="application/zip")


def _shown(connection: sa.Connection, caller: Caller, service: Resources, job_id: str) -> Job:
    """The job as it is now. Raises NotFound."""
    (made,) = _jobs_of(connection, caller, service, [reading.require(connection, caller, job_id)])
    return made


def _jobs_of(connection: sa.Connection, caller: Caller, service: Resources, rows: Sequence[sa.Row[Any]]) -> list[Job]:
    """Rows that the caller may see, as jobs."""
    models = service.models.usable
    finishes = estimated_finishes(connection, models, rows)
    found = parts(connection, caller, models, rows)
    return [job_of(row, caller, service.signer, finishes.get(row.id), found.get(row.id)) for row in rows]


def _hint(service: Resources, job_id: str) -> None:
    """Tell a worker of its silo. The job is committed: when the broker is away, the reconciler sends the hint later."""
    with service.engine.connect() as connection:
        silo = connection.scalar(sa.select(work.c.silo).where(work.c.job_id == job_id))
    try:
        send_hint(service.settings.broker_url.get_secret_value(), job_id, silo)
    except HINT_ERRORS as error:
        logger.warning("no hint was sent for %s: %s", job_id, type(error).__name__)
        return
    with service.engine.begin() as connection:
        life.hinted(connection, [job_id])
