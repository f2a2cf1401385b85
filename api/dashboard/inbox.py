"""What waits for a steward: jobs to be approved, with what is known for the decision, and questions about files."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import Caller, allowed
from api.budgets import endpoints as budgets_api
from api.budgets.schemas import Budget
from api.dashboard.budgets import jobs_of
from api.dashboard.forms import filled, parse
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Resources, Service, Transaction
from api.fields import Id
from api.files import questions as questions_api
from api.jobs import endpoints as jobs_api
from api.jobs.schemas import Approval, Job, Rejection, job_of
from api.pages import After, fetch
from domain.jobs import reading
from domain.jobs.life import WAITING
from domain.kit.tables import job

router = APIRouter(prefix="/inbox")
_steward = allowed("steward")
JOBS = 20
EARLIER = 5
"""Earlier jobs of its budget that are shown beside a job."""


@dataclass(frozen=True)
class WaitingJob:
    """A job that waits, its budget as it is now, and what came of others on that budget, newest first."""

    job: Job
    budget: Budget | None
    earlier: list[Job]


@router.get("")
def index(request: Request, visit: Visit, service: Service, connection: Transaction, after: After = None) -> Response:
    """What waits, the oldest first. Its forms stand still: only the line that counts keeps itself up to date."""
    _steward(visit.caller)
    scoped = reading.waiting_of_tenant(visit.caller)
    rows, more = fetch(connection, scoped, job, after=after, limit=JOBS, order="asc")
    return page(
        request,
        "inbox.html",
        live=15,
        typing=True,
        waiting=_with_budgets(
            [job_of(row, visit.caller, service.signer) for row in rows], visit.caller, service, connection
        ),
        more=rows[-1].id if more else "",
        questions=questions_api.index(visit.caller, connection).data,
    )


@router.post("/{job_id}/approve")
def approve(
    job_id: Id,
    visit: Visit,
    posted: Posted,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
) -> Response:
    """Let a job go to the workers, and go on with what else waits."""
    _steward(visit.caller)
    body = parse(Approval, filled(posted, "reason"))
    jobs_api.approve(job_id, visit.caller, service, connection, after_commit, body)
    return RedirectResponse(f"{PATH}/inbox", 303)


@router.post("/{job_id}/reject")
def reject(job_id: Id, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Cancel a job that waits, and go on with what else does."""
    _steward(visit.caller)
    jobs_api.reject(job_id, parse(Rejection, filled(posted, "reason")), visit.caller, service, connection)
    return RedirectResponse(f"{PATH}/inbox", 303)


def _with_budgets(
    waiting: Sequence[Job], caller: Caller, service: Resources, connection: sa.Connection
) -> list[WaitingJob]:
    """Each budget is read once. A job whose row is damaged names none."""
    ids = {one.privacy.budget for one in waiting} - {""}
    budgets = {id: budgets_api.show(id, caller, connection) for id in ids}
    others = {id: _earlier(id, caller, service, connection) for id in ids}
    return [WaitingJob(one, budgets.get(one.privacy.budget), others.get(one.privacy.budget, [])) for one in waiting]


def _earlier(budget_id: str, caller: Caller, service: Resources, connection: sa.Connection) -> list[Job]:
    found = jobs_of(budget_id, caller, service, connection)
    return [one for one in found if one.status_detail != WAITING][:EARLIER]
