"""The jobs of a file side by side: quality against share of the budget, with what each was asked to do."""

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.auth import Caller, allowed
from api.dashboard import pictures
from api.dashboard.render import page
from api.dashboard.session import Visit
from api.deps import Resources, Service, Transaction
from api.fields import Id
from api.files import endpoints as files_api
from api.jobs.schemas import Job, job_of
from api.pages import fetch
from domain.jobs import reading
from domain.kit.tables import job, job_file
from dpcore.terms.methods import get_method, method_names

router = APIRouter(prefix="/files")
_require = allowed("steward", "analyst")
MOST = 200
"""Jobs, newest first, that are held side by side."""
_SHOWN = ("r", "rounds")
"""Options that stand beside each method that has them, also where they are as usual."""


@router.get("/{file_id}/jobs")
def show(file_id: Id, request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The jobs that learnt from a file, for whoever sees file and jobs."""
    _require(visit.caller)
    file = files_api.show(file_id, visit.caller, connection)
    jobs = jobs_of_file(file_id, visit.caller, service, connection)
    fields = pictures.fields(jobs)
    measured = {made.id for field in fields for _, made in field.jobs}
    return page(
        request,
        "compare.html",
        live=15,
        file=file,
        fields=fields,
        rest=[made for made in jobs if made.id not in measured],
        options={made.id: options_of(made) for made in jobs},
    )


def jobs_of_file(file_id: str, caller: Caller, service: Resources, connection: sa.Connection) -> list[Job]:
    """The newest jobs that learn from the file, federated ones by their own silo."""
    learnt = sa.select(job_file.c.job_id).where(job_file.c.file_id == file_id)
    scoped = reading.page_of_tenant(caller).where(sa.or_(job.c.id.in_(learnt), job.c.silo_job.in_(learnt)))
    rows, _ = fetch(connection, scoped, job, after=None, limit=MOST)
    return [job_of(row, caller, service.signer) for row in rows]


def options_of(made: Job) -> str:
    """What is not as usual about the method, and its rank and rounds; empty for a job that cannot be read."""
    if made.method["type"] not in method_names():
        return ""
    given, usual = made.method[made.method["type"]], get_method(made.method["type"]).Options
    told = [
        f"{name.replace('_', ' ')} {_text(value)}"
        for name, value in given.items()
        if name in usual.model_fields and (name in _SHOWN or _is_unusual(usual, name, value))
    ]
    return ", ".join(told)


def _is_unusual(model: type[BaseModel], name: str, value: Any) -> bool:
    default = model.model_fields[name].default
    return value is not None and value != (list(default) if isinstance(default, tuple) else default)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
