"""A file as its steward sees it: what its check found, and its deletion."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service, Transaction
from api.errors import HttpError
from api.fields import Id
from api.files import endpoints as files_api
from api.files.schemas import File
from domain.ingest.report import UploadReport

router = APIRouter(prefix="/files")
_steward = allowed("steward")


@router.get("/{file_id}")
def show(file_id: Id, request: Request, visit: Visit, connection: Transaction) -> Response:
    """One file and the report of its upload: for stewards alone."""
    _steward(visit.caller)
    file = files_api.show(file_id, visit.caller, connection)
    try:
        report = files_api.report(file_id, visit.caller, connection)
    except HttpError as none:
        return page(request, "file.html", file=file, report=None, why=none.message, counts=[])
    return page(request, "file.html", file=file, report=report, why="", counts=_counts(file, report))


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
        (f"Certainly longer than {file.max_length} words and marks", report.longer_than_max_length),
    ]
    if file.labels is not None:
        told += [
            ("Texts with two or more labels", report.conflicts.texts),
            ("Records with such a text", report.conflicts.records),
        ]
    return told
