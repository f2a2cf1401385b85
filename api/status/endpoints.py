"""The operator's view. An administrator is one of a tenant: what tells of other tenants is for the operator's alone."""

import sys
from importlib.metadata import version
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request

from api.auth import Admin, Caller
from api.deps import Resources, Service, Transaction
from api.health.checks import places
from api.models import endpoints as models_api
from api.models.endpoints import Model
from api.status.schemas import Disk, Keeping, Load, ModelState, Queue, StatusReport, Worker
from domain.jobs.life import INVITED, PAUSED, WAITING
from domain.jobs.workers import LiveWorker
from domain.kit import disk
from domain.kit.tables import job, keeper_watch
from ledger.tables import budget

router = APIRouter(prefix="/v1/status", tags=["health"])


def answered(request: Request) -> list[LiveWorker] | None:
    """The workers that answer, as of ten seconds ago at most; asked before a connection is taken."""
    found: list[LiveWorker] | None = request.state.workers()
    return found


Answered = Annotated[list[LiveWorker] | None, Depends(answered)]


@router.get("")
def show(
    request: Request, caller: Admin, answered: Answered, service: Service, connection: Transaction
) -> StatusReport:
    """How the service does: workers, queue, models, disk, verification, versions. Of tenants it counts yours; of all
    together for administrators of the tenant that runs the service (TACIT_OPERATOR_TENANT)."""
    operates = caller.tenant_id == service.settings.operator_tenant
    own_jobs, own_budgets = job.c.tenant_id == caller.tenant_id, budget.c.tenant_id == caller.tenant_id
    return StatusReport(
        checks=request.state.readiness(),
        workers=None if answered is None else _workers(answered, caller, service, operates),
        tenant=_load(connection, own_jobs, own_budgets),
        installation=_load(connection, sa.true(), sa.true()) if operates else None,
        models=[_state(model) for model in models_api.index(caller, service, connection).data],
        disk=_disks(service, operates),
        keeping=_keeping(service, connection),
        versions={
            "tacit": version("tacit"),
            "python": sys.version.split()[0],
            "revision": connection.exec_driver_sql("SELECT version_num FROM public.alembic_version").scalar_one(),
            "postgres": connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0],
        },
    )


def _workers(answered: list[LiveWorker], caller: Caller, service: Resources, operates: bool) -> list[Worker]:
    """Those that may take a job of the caller's; that another tenant has a silo is nobody's business."""
    own = {name for name, silo in service.settings.silos.items() if caller.tenant_id in silo.tenants}
    seen = [one for one in answered if operates or (one.known and (one.silo is None or one.silo in own))]
    return [Worker(name=one.name if operates else None, silo=one.silo, versions=dict(one.versions)) for one in seen]


def _load(connection: sa.Connection, jobs: sa.ColumnElement[bool], budgets: sa.ColumnElement[bool]) -> Load:
    rows = connection.execute(
        sa.select(job.c.status, job.c.status_detail, sa.func.count().label("number"))
        .where(jobs)
        .group_by(job.c.status, job.c.status_detail)
    ).all()
    frozen = sa.select(sa.func.count()).where(budgets, budget.c.frozen_reason.is_not(None))
    by_status: dict[str, int] = {}
    queued = {row.status_detail: row.number for row in rows if row.status == "queued"}
    for row in rows:
        by_status[row.status] = by_status.get(row.status, 0) + row.number
    held = {detail: queued.pop(detail, 0) for detail in (WAITING, INVITED, PAUSED)}
    return Load(
        queue=Queue(
            in_line=sum(queued.values()),
            waiting_for_approval=held[WAITING],
            waiting_for_silos=held[INVITED],
            paused=held[PAUSED],
            running=by_status.get("running", 0),
        ),
        jobs=dict(sorted(by_status.items())),
        frozen_budgets=connection.execute(frozen).scalar_one(),
    )


def _state(model: Model) -> ModelState:
    tried = "; ".join(f"{one.method} ({one.task}): {one.because}" for one in model.refused)
    return ModelState(id=model.id, available=model.available, because=model.unavailable_because or tried or None)


def _disks(service: Resources, operates: bool) -> list[Disk]:
    """Whole GiB, as less would tell the size of an upload; and of others' uploads even they would tell."""
    wanted = service.settings.disk_reserve + service.settings.upload_limit
    free = {name: disk.free(folder) for name, folder in places(service).items()}
    return [
        Disk(place=name, word="ok" if room >= wanted else "low", free_gib=room // 2**30 if operates else None)
        for name, room in free.items()
    ]


def _keeping(service: Resources, connection: sa.Connection) -> Keeping:
    minute = sa.func.date_trunc("minute", keeper_watch.c.finished_at).label("at")
    rows = connection.execute(sa.select(keeper_watch.c.duty, minute))
    at = {row.duty: int(row.at.timestamp()) for row in rows}
    return Keeping(
        keeper=service.keeper.word,
        witness=service.keeper.witness_word,
        turn_at=at.get("turn"),
        verified_at=at.get("verification"),
    )
