"""Budgets: what is spent, reserved and left, by which job, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response

from api.auth import Caller, allowed
from api.budgets import endpoints as budgets_api
from api.budgets.schemas import Budget, Entry
from api.dashboard import charts, render, shares
from api.dashboard.forms import RefusedForm
from api.dashboard.render import page
from api.dashboard.session import Visit, Visitor
from api.deps import Resources, Service, Transaction
from api.fields import Id
from api.files import endpoints as files_api
from api.files import questions as questions_api
from api.files.schemas import File
from api.grants import endpoints as grants_api
from api.grants.schemas import Grant
from api.jobs.schemas import Job, job_of
from api.keys import endpoints as keys_api
from api.pages import After, fetch
from api.statements import endpoints as statements_api
from domain.access import budgets as domain_budgets
from domain.jobs import reading
from domain.keeping.keeper import Keeper
from domain.kit import share_words as words
from domain.kit.tables import job, job_file

router = APIRouter(prefix="/budgets")
_answerable = allowed("steward", "auditor")
LINES = 100
"""Most ledger entries, and jobs, that a budget's page shows."""
FILES = 1000


@dataclass(frozen=True)
class EntryLine:
    """A ledger entry, and the total after it on the page's scale."""

    entry: Entry
    change: str
    """How far it moved the total as it is shown; empty for the oldest shown, when older ones are not."""
    after: str
    used: float

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
    cards = [(budget, shares.whole_of(budget), bar(budget)) for budget in found.data]
    watch = _watch(service.keeper) if visit.may("steward") else None
    waiting = questions_api.index(visit.caller, connection).data if visit.may("steward") else []
    return page(
        request,
        "budgets.html",
        live=10,
        typing=bool(waiting),
        found=found,
        cards=cards,
        keeper=watch,
        questions=waiting,
    )


@router.get("/{budget_id}")
def show(budget_id: Id, request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """One budget: stewards and auditors see its ledger, stewards and analysts its jobs and files."""
    return budget_page(budget_id, request, visit, service, connection)


@router.get("/{budget_id}/statement")
def statement(budget_id: Id, visit: Visit, connection: Transaction) -> Response:
    """The budget's statement, a page of its own."""
    _answerable(visit.caller)
    found = statements_api.of_budget(budget_id, visit.caller, connection, "html")
    assert isinstance(found, Response)
    return found


@router.get("/{budget_id}/evidence.zip")
def evidence(budget_id: Id, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The statement with the whole ledger, signed."""
    _answerable(visit.caller)
    return statements_api.budget_evidence(budget_id, visit.caller, service, connection)


def budget_page(
    budget_id: str,
    request: Request,
    visit: Visitor,
    service: Resources,
    connection: sa.Connection,
    refused: RefusedForm | None = None,
) -> Response:
    """The page, with one of its forms as it was sent where that was refused; then it does not look again by itself."""
    budget = budgets_api.show(budget_id, visit.caller, connection)
    lines = _lines(budget, visit.caller, connection) if visit.may("steward", "auditor") else None
    submitted, files = [], []
    whole = shares.whole_of(budget)
    if visit.may("steward", "analyst"):
        submitted = jobs_of(budget_id, visit.caller, service, connection)
        files = [file for file in private_files(visit.caller, connection) if file.budget == budget_id]
    grants = grants_api.index(budget_id, visit.caller, connection, limit=LINES).data
    return page(
        request,
        "budget.html",
        status=refused.status if refused else 200,
        live=0 if refused else 5,
        typing=visit.may("steward"),
        refused=refused,
        known=known_grantees(visit, connection, grants),
        budget=budget,
        whole=whole,
        bar=bar(budget),
        chart=charts.steps(_history(budget, lines, submitted), 1.0 if whole else budget.epsilon),
        parts_of=_parts_of(budget, whole, submitted, connection),
        lines=lines,
        more=lines is not None and budget.ledger.seq > len(lines),
        jobs=submitted,
        files=files,
        grants=grants,
    )


def known_grantees(visit: Visitor, connection: sa.Connection, grants: Sequence[Grant]) -> dict[str, dict[str, str]]:
    """Keys (id and name) and projects to choose from, the newest and those granted before; and revoked keys."""
    if not visit.may("steward"):
        return {"keys": {}, "projects": {}, "gone": {}}
    found = keys_api.index(visit.caller, connection, limit=LINES).data
    keys = {one.key: "" for one in grants if one.key} | {key.id: key.name for key in found}
    projects = {one.project: "" for one in grants if one.project}
    projects |= {key.project: "" for key in found if key.project and key.revoked_at is None}
    return {"keys": keys, "projects": projects, "gone": {key.id: "" for key in found if key.revoked_at is not None}}


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
    """What the meter draws: spent, and what the reservations add to it."""
    whole = shares.whole_of(budget)
    if whole is not None:
        return charts.parts(words.WHOLE, whole.spent, whole.reserved)
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


def _lines(budget: Budget, caller: Caller, connection: sa.Connection) -> list[EntryLine]:
    """The ledger's newest entries, newest first."""
    found = budgets_api.entries(budget.id, caller, connection, limit=LINES, order="desc")
    entries = [
        entry for entry in found.data if entry.seq <= budget.ledger.seq
    ]  # what came since waits for the next look
    place = shares.main_place(budget)
    if place is None:
        return _in_epsilon(entries, found.has_more)
    now, cap = budget.ledger.spent[place] + budget.ledger.reserved[place], budget.ledger.cap[place]
    changes = [entry.spent_change[place] + entry.reserved_change[place] for entry in entries]
    lines = []
    for entry, (after, before) in zip(entries, shares.walked_back(now, changes), strict=True):
        shown, shown_before = shares.of_cap(after, cap), shares.of_cap(before, cap)
        first = entry is entries[-1] and found.has_more
        change = "" if first else words.signed(shown - shown_before)
        lines.append(EntryLine(entry, change, words.percent(shown), after / cap))
    return lines


def _in_epsilon(entries: list[Entry], more: bool) -> list[EntryLine]:
    """Of a budget that has no parts to speak of."""
    before = [entry.epsilon_after for entry in entries[1:]] + ([] if more else [0.0])
    changes = [render.change(new.epsilon_after - old) for new, old in zip(entries, before, strict=False)]
    changes += [""] * (len(entries) - len(changes))
    return [
        EntryLine(entry, change, render.spent(entry.epsilon_after), entry.epsilon_after)
        for entry, change in zip(entries, changes, strict=True)
    ]


def _history(budget: Budget, lines: list[EntryLine] | None, submitted: list[Job]) -> list[charts.Point]:
    """What was used over time: by the ledger, or, for who may not read it, as it was told with each job."""
    if lines is not None:
        return [charts.Point(line.at, line.used) for line in reversed(lines)]
    if shares.main_place(budget) is None:
        used = [(made, budget.epsilon - made.privacy.budget_left_after) for made in submitted]
    else:
        left = [(made, made.privacy.share_left_after) for made in submitted]
        used = [(made, 1 - share) for made, share in left if share is not None]
    told = [charts.Point(made.created_at, amount) for made, amount in reversed(used)]
    return [charts.Point(budget.created_at, 0.0), *told]


def _parts_of(
    budget: Budget, whole: shares.WholeBudget | None, submitted: list[Job], connection: sa.Connection
) -> shares.JobParts | None:
    """What the jobs on the page have of the budget; None where there are no parts, or they are no parts of one whole:
    a limit was lowered below what jobs have."""
    place = shares.main_place(budget)
    if whole is None or place is None or not submitted:
        return None
    held, cap = domain_budgets.held_by_jobs(connection, budget.id, place), budget.ledger.cap[place]
    inside = [job for job in reversed(submitted) if job.privacy.main_order is not False]
    amounts = [Fraction(held.get(job.id, 0), cap) for job in inside]
    if sum(amounts) * words.WHOLE > whole.used:
        return None
    rest = Fraction(whole.used, words.WHOLE) - sum(amounts)
    *shown, other = shares.apart(whole.used, [*amounts, rest])
    return shares.JobParts({job.id: part for job, part in zip(inside, shown, strict=True)}, other)
