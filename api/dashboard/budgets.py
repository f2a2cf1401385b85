"""Budgets: what is spent, reserved and left, by which job, and when."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import Caller, allowed
from api.budgets import endpoints as budgets_api
from api.budgets.schemas import Budget, Entry
from api.dashboard import charts
from api.dashboard.forms import filled, parse
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Resources, Service, Transaction
from api.fields import Id
from api.files import endpoints as files_api
from api.files import questions as questions_api
from api.files.schemas import File
from api.grants import endpoints as grants_api
from api.grants.schemas import NewGrant
from api.jobs.schemas import Job, job_of
from api.pages import After, fetch
from domain.jobs import reading
from domain.keeping.keeper import Keeper
from domain.kit.refusals import Invalid
from domain.kit.tables import job, job_file

router = APIRouter(prefix="/budgets")
_steward = allowed("steward")
LINES = 100
"""Most ledger entries, and jobs, that a budget's page shows."""
FILES = 1000


@dataclass(frozen=True)
class EntryLine:
    """A ledger entry and how far it moved the total; None for the oldest shown, when older ones are not."""

    entry: Entry
    change: float | None

    @property
    def what(self) -> str:
        return "records were added" if self.entry.kind == "records" else self.entry.kind

    @property
    def at(self) -> int:
        return int(datetime.fromisoformat(self.entry.at).timestamp())


@router.get("")
def index(request: Request, visit: Visit, service: Service, connection: Transaction, after: After = None) -> Response:
    """All budgets that the caller may see; for stewards and administrators also how the ledger's keeper does."""
    found = budgets_api.index(visit.caller, connection, after=after, limit=20)
    cards = [(budget, bar(budget)) for budget in found.data]
    watch = _watch(service.keeper) if visit.may("steward") else None
    waiting = questions_api.index(visit.caller, connection).data if visit.may("steward") else []
    return page(request, "budgets.html", live=10, found=found, cards=cards, keeper=watch, questions=waiting)


@router.get("/{budget_id}")
def show(budget_id: Id, request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """One budget: stewards and auditors see its ledger, stewards and analysts its jobs and files."""
    budget = budgets_api.show(budget_id, visit.caller, connection)
    lines = _lines(budget_id, visit.caller, connection) if visit.may("steward", "auditor") else None
    submitted, files = [], []
    if visit.may("steward", "analyst"):
        submitted = jobs_of(budget_id, visit.caller, service, connection)
        files = [file for file in private_files(visit.caller, connection) if file.budget == budget_id]
    return page(
        request,
        "budget.html",
        live=5,
        budget=budget,
        bar=bar(budget),
        chart=charts.steps(_history(budget, lines, submitted), budget.epsilon),
        lines=lines,
        more=lines is not None and budget.ledger.seq > len(lines),
        jobs=submitted,
        files=files,
        grants=grants_api.index(budget_id, visit.caller, connection, limit=LINES).data,
    )


@router.post("/{budget_id}/grants")
def grant(budget_id: Id, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Let a key or a project use the budget."""
    _steward(visit.caller)
    values = filled(posted, "key", "project", "share", "epsilon", "approval_above", "reason")
    if "until" in (day := filled(posted, "until")):
        values["expires_at"] = str(_end_of(day["until"]))
    body = parse(NewGrant, values)
    grants_api.create(budget_id, body, visit.caller, service, connection)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}#grants", 303)


@router.post("/{budget_id}/grants/{grant_id}/revoke")
def revoke(budget_id: Id, grant_id: Id, visit: Visit, posted: Posted, connection: Transaction) -> Response:
    """End a grant for jobs to come."""
    _steward(visit.caller)
    grants_api.revoke(budget_id, grant_id, visit.caller, connection)
    return RedirectResponse(f"{PATH}/budgets/{budget_id}#grants", 303)


def _end_of(day: str) -> int:
    """Unix seconds of a day's end, UTC. Raises Invalid."""
    try:
        midnight = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Invalid("until: a day such as 2030-06-30", code="invalid_request", param="until") from None
    return int((midnight + timedelta(days=1)).timestamp())


def _watch(keeper: Keeper) -> dict[str, str]:
    troubles = {"keeper": keeper.word, "witness": keeper.witness_word}
    return {
        "turn": _ago(keeper.age),
        "verified": _ago(keeper.verified_age),
        "words": ", ".join(f"{name} {word}" for name, word in troubles.items() if word != "ok"),
    }


def _ago(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes >= 120:
        return f"{minutes // 60} hours ago"
    return f"{minutes} minutes ago" if minutes > 1 else "within the last two minutes"


def bar(budget: Budget) -> list[tuple[float, float]]:
    """Spent, and what the reservations add to it."""
    used = budget.epsilon - budget.epsilon_left
    return charts.parts(budget.epsilon, budget.epsilon_spent, max(0.0, used - budget.epsilon_spent))


def private_files(caller: Caller, connection: sa.Connection) -> list[File]:
    """The private files that the caller may see, newest first."""
    return files_api.index(caller, connection, limit=FILES, purpose="fine-tune").data


def jobs_of(budget_id: str, caller: Caller, service: Resources, connection: sa.Connection) -> list[Job]:
    """The budget's newest jobs."""
    charged = sa.select(job_file.c.job_id).where(job_file.c.budget_id == budget_id)
    scoped = reading.page_of_tenant(caller).where(job.c.id.in_(charged))
    rows, _ = fetch(connection, scoped, job, after=None, limit=LINES)
    return [job_of(row, caller, service.signer) for row in rows]


def _lines(budget_id: str, caller: Caller, connection: sa.Connection) -> list[EntryLine]:
    """The ledger's newest entries, newest first."""
    found = budgets_api.entries(budget_id, caller, connection, limit=LINES, order="desc")
    lines = [EntryLine(new, new.epsilon_after - old.epsilon_after) for new, old in pairwise(found.data)]
    if found.data:
        lines.append(EntryLine(found.data[-1], None if found.has_more else found.data[-1].epsilon_after))
    return lines


def _history(budget: Budget, lines: list[EntryLine] | None, submitted: list[Job]) -> list[charts.Point]:
    """What was used over time: by the ledger, or, for who may not read it, as it was told with each job."""
    if lines is not None:
        return [charts.Point(line.at, line.entry.epsilon_after) for line in reversed(lines)]
    told = [
        charts.Point(made.created_at, budget.epsilon - made.privacy.budget_left_after) for made in reversed(submitted)
    ]
    return [charts.Point(budget.created_at, 0.0), *told]
