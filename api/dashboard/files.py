"""A file as its steward sees it: what its check found, what it waits for, and its deletion."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service, Transaction
from api.errors import HttpError
from api.fields import Id
from api.files import endpoints as files_api
from api.files import questions as questions_api
from api.files.schemas import File, NewlyUploaded
from domain.ingest.report import UploadReport

router = APIRouter(prefix="/files")
_steward = allowed("steward")
MOST_TOLD = 10
"""Public files with some of an upload's texts that its page names."""


@router.get("/{file_id}")
def show(
    file_id: Id,
    request: Request,
    visit: Visit,
    connection: Transaction,
    inherited: bool = False,
    flatters: Annotated[tuple[str, ...], Query(max_length=MOST_TOLD)] = (),
) -> Response:
    """One file, the question about it and the report of its upload: for stewards alone. What only the answer to an
    upload tells comes with the address."""
    _steward(visit.caller)
    file = files_api.show(file_id, visit.caller, connection)
    waiting = questions_api.index(visit.caller, connection).data if file.status == "uploaded" else []
    public = files_api.index(visit.caller, connection, limit=1000, purpose="evals").data if flatters else []
    report, why = None, ""
    try:
        report = files_api.report(file_id, visit.caller, connection)
    except HttpError as none:
        why = none.message
    return page(
        request,
        "file.html",
        file=file,
        question=next((one for one in waiting if one.id == file_id), None),
        inherited=inherited,
        flatters=[one.filename for one in public if one.id in flatters],
        report=report,
        why=why,
        counts=[] if report is None else _counts(file, report),
    )


def address(made: NewlyUploaded) -> str:
    """Where a file stands that was just uploaded."""
    told: list[tuple[str, str]] = [("inherited", "true")] if made.budget_inherited else []
    told += [("flatters", id) for id in sorted(made.public_overlap)[:MOST_TOLD]]
    return f"{PATH}/files/{made.id}" + (f"?{urlencode(told)}" if told else "")


@router.post("/{file_id}/delete")
def delete(file_id: Id, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Delete the rows for good; the budget keeps what it has spent."""
    _steward(visit.caller)
    budget = files_api.show(file_id, visit.caller, connection).budget
    files_api.delete(file_id, visit.caller, service, connection)
    return RedirectResponse(f"{PATH}/budgets/{budget}" if budget else f"{PATH}/budgets", 303)


def _counts(file: File, report: UploadReport) -> list[tuple[str, int]]:
    """What became of the records, in words."""
    told = [
        ("Read", report.read),
        ("Kept", report.kept),
        ("The same as an earlier one", report.repeated),
        ("Beyond what one user may contribute", report.dropped_by_user_bound),
        (f"Scaled down to {file.resolution} pixels", report.pictures.scaled_down)
        if report.pictures is not None
        else (f"Certainly longer than {file.max_length} words and marks", report.longer_than_max_length),
    ]
    if file.labels is not None:
        what = ("Texts", "text") if report.pictures is None else ("Pictures", "picture")
        told += [
            (f"{what[0]} with two or more labels", report.conflicts.texts),
            (f"Records with such a {what[1]}", report.conflicts.records),
        ]
    return told
