"""Statements for people who must answer for a release, and the evidence that they are bound to."""

import hashlib
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from api.auth import AnyKey, Caller, StewardOrAnalyst, StewardOrAuditor
from api.deps import Resources, Service, Transaction
from api.download import attachment
from api.fields import Id
from api.statements import page
from domain.statements import books, budget, evidence, job
from domain.statements.models import BudgetStatement, JobStatement, schema

router = APIRouter(prefix="/v1", tags=["statements"])
StatementForm = Annotated[
    Literal["json", "html"], Query(alias="format", description="`html`: one page, for a browser or paper")
]
_PAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {}}}}


class StatementSchemas(BaseModel):
    """The JSON schemas that statements are published against."""

    object: Literal["statement.schemas"] = "statement.schemas"
    job: dict[str, Any]
    budget: dict[str, Any]


@router.get("/statements/schemas")
def schemas(caller: AnyKey) -> StatementSchemas:
    """What the statements of a job and of a budget look like, as JSON schemas."""
    return StatementSchemas(job=schema(JobStatement), budget=schema(BudgetStatement))


@router.get("/fine_tuning/jobs/{job_id}/statement", response_model=JobStatement, responses=_PAGE)
def of_job(
    job_id: Id, caller: StewardOrAnalyst, service: Service, connection: Transaction, form: StatementForm = "json"
) -> JobStatement | Response:
    """What is claimed of a job, as it stands now: the promise in words, numbers and odds, what was released, who asked
    and agreed, and what is not covered. What an earlier version did not write down is null."""
    books.one_moment(connection)
    said = job.statement(connection, caller, service.store, job_id)
    return said if form == "json" else page.answer(page.written(said))


@router.get("/budgets/{budget_id}/statement", response_model=BudgetStatement, responses=_PAGE)
def of_budget(
    budget_id: Id, caller: StewardOrAuditor, connection: Transaction, form: StatementForm = "json"
) -> BudgetStatement | Response:
    """All that was ever released about the people of a budget, in order, with the decisions and what is left."""
    books.one_moment(connection)
    said = budget.statement(connection, caller, budget_id)
    return said if form == "json" else page.answer(page.written(said))


@router.get("/fine_tuning/jobs/{job_id}/evidence", response_class=Response)
def job_evidence(job_id: Id, caller: StewardOrAnalyst, service: Service, connection: Transaction) -> Response:
    """The job's statement as JSON and as a page, its receipts and the ledger around its charge, signed together: a ZIP
    that `tacit verify-release` checks without the service. To analysts, lines of other jobs are numbers and hashes."""
    return sent(evidence_of_job(job_id, caller, service, connection), job_id)


@router.get("/budgets/{budget_id}/evidence", response_class=Response)
def budget_evidence(budget_id: Id, caller: StewardOrAuditor, service: Service, connection: Transaction) -> Response:
    """The budget's statement as JSON and as a page with its whole ledger, signed together: a ZIP that
    `tacit verify-release` checks without the service."""
    books.one_moment(connection)
    said = budget.statement(connection, caller, budget_id)
    return sent(evidence.of_budget(connection, service.signer, said, page.written(said)), budget_id)


def evidence_of_job(job_id: str, caller: Caller, service: Resources, connection: sa.Connection) -> dict[str, bytes]:
    """The files of a job's evidence, as this caller may have them."""
    books.one_moment(connection)
    said = job.statement(connection, caller, service.store, job_id)
    whole = caller.may("steward")
    return evidence.of_job(connection, service.signer, said, page.written(said), whole=whole)


def sent(files: dict[str, bytes], name: str) -> Response:
    """As a ZIP, with its sha256."""
    data = evidence.zipped(files)
    headers = {
        "x-content-sha256": hashlib.sha256(data).hexdigest(),
        "content-disposition": attachment(f"{name}-evidence.zip"),
    }
    return Response(data, media_type="application/zip", headers=headers)
