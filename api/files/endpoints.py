"""Files: uploaded and deleted by stewards; analysts see what is public about them."""

import functools
from collections.abc import Awaitable, Callable
from typing import IO, Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import Caller, Steward, StewardOrAnalyst
from api.budgets.schemas import exact
from api.deps import Resources, Service, Transaction
from api.download import attachment, send_blob
from api.errors import HttpError
from api.fields import Id
from api.files.questions import question_of, waiting_file
from api.files.schemas import (
    ColumnNames,
    DeletedFile,
    File,
    NewFile,
    NewlyUploaded,
    PrivacyBudget,
    file_of,
    form_format,
    parse_form,
    safe_name,
)
from api.files.upload import Form, receive
from api.middleware import FORM_OVERHEAD
from api.pages import After, Order, Page, fetch, page
from domain.access import budgets, quotas
from domain.files import files, fingerprints, questions, resemblance, scratch, upload_reports
from domain.files.binding import open_file
from domain.files.fingerprints import mark_of
from domain.files.resemblance import Resemblance
from domain.files.scratch import OpenUpload
from domain.files.whereabouts import Ask
from domain.ingest.check import CheckReport, CheckRequest
from domain.ingest.fingerprint import tenant_key
from domain.ingest.formats import ZIP
from domain.ingest.looks import first_names
from domain.ingest.report import Published, UploadReport
from domain.ingest.run import run_check
from domain.kit import disk
from domain.kit.purposes import PRIVATE, PUBLIC, RESULT
from domain.kit.refusals import Conflict, Invalid, NotFound
from domain.kit.settings import secret_bytes
from domain.kit.tables import file, question
from domain.storage import blobs
from domain.storage.blobs import Store
from domain.storage.homes import home_for
from domain.storage.rows import stream_jsonl

router = APIRouter(prefix="/v1/files", tags=["files"])
Receiver = Callable[[Request, IO[bytes], int], Awaitable[Form]]
FileLimit = Annotated[int, Query(ge=1, le=10_000, description="most items in the page")]


def _form_schema() -> dict[str, Any]:
    """The form for the API's description: nested fields are sent as `privacy_budget[epsilon]`."""
    schema = NewFile.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    text = {"type": "string"}
    properties = {name: {**text, "description": p.get("description", "")} for name, p in schema["properties"].items()}
    for nested in ("privacy_budget", "columns"):
        del properties[nested]
    for name, field in PrivacyBudget.model_fields.items():
        properties[f"privacy_budget[{name}]"] = {**text, "description": field.description or ""}
    for name in ColumnNames.model_fields:
        properties[f"columns[{name}]"] = text
    properties["file"] = {
        "type": "string",
        "format": "binary",
        "description": "JSONL, CSV, TSV, Parquet or a zip of pictures, by its name",
    }
    body = {"type": "object", "required": ["purpose", "file"], "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": body}}}}


@router.post("", status_code=201, openapi_extra=_form_schema())
async def create(request: Request, caller: Steward, service: Service) -> NewlyUploaded:
    """Upload a file. It is checked before the answer: either the file is usable, or the answer names what is wrong
    in it, line by line, and nothing of it is kept."""
    return await take(request, caller, service, receive)


async def take(request: Request, caller: Caller, service: Resources, receive: Receiver) -> NewlyUploaded:
    """Take in a file that `receive` reads off the request."""
    file_id = files.new_file_id()
    declared = request.headers.get("content-length", "")
    await to_thread.run_sync(_require_room, service, caller, int(declared) if declared.isdecimal() else 0)
    # No transaction is open while bytes arrive or are checked: that may take minutes.
    with scratch.part(_received_in(service, caller), file_id) as part:
        form = await receive(request, part.file, service.settings.upload_limit)
        names = await to_thread.run_sync(first_names, part.path, form_format(form.filename or "") or "parquet")
        wanted = parse_form(form, names)
        most = await to_thread.run_sync(_require_budget, service, caller, wanted)
        checking = functools.partial(run_check, _check_request(service, caller, wanted, form, part, most))
        report = await to_thread.run_sync(checking, limiter=service.checks)
        if report.problems:
            raise _unusable(report, form)
        return await to_thread.run_sync(_keep, service, caller, file_id, wanted, form, report, part)


@router.get("")
def index(
    caller: StewardOrAnalyst,
    connection: Transaction,
    after: After = None,
    limit: FileLimit = 100,
    order: Order = "desc",
    purpose: Literal["fine-tune", "evals", "fine-tune-results"] | None = None,
) -> Page[File]:
    """The files that the caller may see."""
    scoped, left = files.of_tenant(caller), files.of_tenant(caller, deleted=True)
    if purpose is not None:
        scoped, left = scoped.where(file.c.purpose == purpose), left.where(file.c.purpose == purpose)
    rows, more = fetch(connection, scoped, file, after=after, limit=limit, order=order, left=left)
    return page([file_of(row, caller) for row in rows], more)


@router.get("/{file_id}")
def show(file_id: Id, caller: StewardOrAnalyst, connection: Transaction) -> File:
    """One file."""
    try:
        return file_of(files.require(connection, caller, file_id), caller)
    except NotFound:
        if not caller.may("steward"):
            raise
        return waiting_file(questions.require(connection, caller.tenant_id, file_id))


@router.get("/{file_id}/report")
def report(file_id: Id, caller: Steward, connection: Transaction) -> UploadReport:
    """What the check of the upload found that is no problem: what was kept, repeated, in conflict or too long, and what
    to look at again. It counts private rows: for the steward alone."""
    waiting = connection.execute(
        questions.open_questions(caller.tenant_id).where(question.c.file_id == file_id)
    ).first()
    if waiting is not None:
        return questions.report_of(waiting)
    found = upload_reports.of_file(connection, files.require(connection, caller, file_id).id)
    if found is None:
        raise HttpError(404, "no_report", "this file has no report: it is a result, or older than reports are")
    return found


@router.delete("/{file_id}")
def delete(file_id: Id, caller: Steward, service: Service, connection: Transaction) -> DeletedFile:
    """Delete a file's content for good. Its budget keeps what it has spent. One that waits for an answer is withdrawn:
    it was under no budget."""
    if connection.execute(questions.open_questions(caller.tenant_id).where(question.c.file_id == file_id)).first():
        row = questions.require(connection, caller.tenant_id, file_id, lock=True)
        questions.answer(connection, file_id, "withdrawn", caller.key_id, None)
        questions.forget(service.store, row, rows=True)
    else:
        files.delete(connection, service.store, caller, file_id)
    return DeletedFile(id=file_id)


@router.head("/{file_id}/content", include_in_schema=False)
@router.get("/{file_id}/content", response_class=Response)
def content(
    file_id: Id, caller: StewardOrAnalyst, request: Request, service: Service, connection: Transaction
) -> Response:
    """A result as it was released; the checked rows of a dataset as JSON Lines. Private rows: for the steward alone."""
    row = files.require(connection, caller, file_id)
    if row.purpose == PRIVATE and not caller.may("steward"):
        raise HttpError(403, "missing_scope", "the rows of a private file are for its steward alone")
    if row.status != "processed":
        raise Conflict(f"the file has status {row.status}", code="file_not_processed")
    blob = open_file(connection, service.store, row)
    if row.purpose == RESULT:
        return send_blob(request, blob, sha256=row.sha256, filename=row.filename, media_type="application/octet-stream")
    return StreamingResponse(
        iter(()) if request.method == "HEAD" else stream_jsonl(blob, row.labels),
        headers={"content-disposition": attachment(f"{row.id}.jsonl")},
        media_type="application/jsonl",
    )


def _require_room(service: Resources, caller: Caller, size: int) -> None:
    """Refuse before the bytes come what there is no place for: as sent, as checked, and what the check keeps aside or,
    when that is gone, as stored. Raises Forbidden for the tenant's quota, OSError for the disk."""
    with service.engine.connect() as connection:
        least = max(0, size - FORM_OVERHEAD)  # of the file alone; its own size is asked about at the end
        quotas.require_storage(connection, caller.tenant_id, least, service.settings.storage_quota)
    disk.require_room(scratch.folder(_received_in(service, caller)), 3 * size, service.settings.disk_reserve)


def _received_in(service: Resources, caller: Caller) -> Store:
    """The place that a tenant's uploads pass through, whatever they are for: nobody knows before all of it is there."""
    return service.store.at(home_for(service.settings.silos, caller.tenant_id, PRIVATE))


def _require_budget(service: Resources, caller: Caller, wanted: NewFile) -> int | None:
    """Refuse early what the check of the rows cannot mend; returns the most rows of a user, where that is the unit."""
    most = None
    size = wanted.declared_size if isinstance(wanted.declared_size, int) else None
    if wanted.budget is not None:
        with service.engine.connect() as connection:
            budget = files.require_budget(connection, caller.tenant_id, wanted.budget, size)
        most = budget.max_records_per_user
    elif (inline := wanted.privacy_budget) is not None:
        most = inline.max_records_per_user
        budgets.require_whole_unit(inline.unit, most, "privacy_budget.")
        if inline.delta is not None and size is not None:
            files.require_small_delta(exact(inline.delta), size)
    if most is not None and wanted.columns.user is None:
        raise Invalid(
            "the unit of the budget is the user: name the column with the user's id in columns[user]",
            code="invalid_request",
            param="columns.user",
        )
    return most


def _check_request(
    service: Resources, caller: Caller, wanted: NewFile, form: Form, part: OpenUpload, max_records_per_user: int | None
) -> CheckRequest:
    return CheckRequest(
        source=part.path,
        target=part.rows,
        format=form_format(form.filename or "") or "",
        task=wanted.kind,
        columns=wanted.names,
        labels=wanted.labels if isinstance(wanted.labels, list) else None,
        declared_size=wanted.declared_size if isinstance(wanted.declared_size, int) else None,
        quotes=wanted.quotes,
        key=tenant_key(secret_bytes(service.settings.fingerprint_key), caller.tenant_id).hex(),
        public=wanted.purpose == PUBLIC,
        max_length=wanted.max_length,
        resolution=wanted.resolution,
        max_records_per_user=max_records_per_user,
        marks=part.marks,
    )


def _published(wanted: NewFile) -> list[Published]:
    """What the steward lets be published as it is found. All of a public file is public."""
    if wanted.purpose != PRIVATE:
        return []
    found: list[Published] = ["labels"] if wanted.labels == "publish" else []
    return [*found, "declared_size"] if wanted.declared_size == "count" else found


def _unusable(report: CheckReport, form: Form) -> Invalid:
    first = report.problems[0]
    unit = {"parquet": "row", ZIP: "entry"}.get(form_format(form.filename or "") or "", "line")
    place = "the file" if first.line is None else f"{unit} {first.line}"
    others = f" ({report.problem_count} problems in all)" if report.problem_count > 1 else ""
    return Invalid(
        f"the file cannot be used: {place}: {first.message}{others}",
        code="invalid_file",
        param="file",
        errors=[problem.model_dump() for problem in report.problems],
        problem_count=report.problem_count,
    )


def _keep(
    service: Resources, caller: Caller, file_id: str, wanted: NewFile, form: Form, report: CheckReport, part: OpenUpload
) -> NewlyUploaded:
    """Store the rows, then let the commit make the file visible; `part` is the note of it until then."""
    assert report.report is not None  # there was no problem
    found = report.report.model_copy(update={"published": _published(wanted)})
    inline = wanted.privacy_budget
    upload = files.Upload(
        id=file_id,
        tenant_id=caller.tenant_id,
        purpose=wanted.purpose,
        task=wanted.kind,
        filename=safe_name(form.filename or ""),
        bytes=form.size,
        sha256=form.digest.hexdigest(),
        declared_size=wanted.declared_size if isinstance(wanted.declared_size, int) else report.units,
        labels=report.labels,
        max_length=wanted.cap,
    )
    budget = (
        wanted.budget
        if inline is None
        else files.InlineBudget(
            epsilon=exact(inline.epsilon),
            delta=None if inline.delta is None else exact(inline.delta),
            unit=inline.unit,
            max_records_per_user=inline.max_records_per_user,
            held_out=exact(inline.held_out),
            name=inline.name,
        )
    )
    home = home_for(service.settings.silos, caller.tenant_id, wanted.purpose)
    near = Resemblance()
    with service.engine.connect() as connection:  # what takes long, before anybody waits for it
        resemblance.look(connection, caller.tenant_id, part.marks.sketches, near)
    try:
        # Outside of the transaction: the blob's key is a connection's work too.
        rows = blobs.put_file(service.store, files.rows_key(home, file_id), part.rows)
        with service.engine.begin() as connection:
            if service.settings.storage_quota is not None:
                fingerprints.lock(connection, caller.tenant_id)
            quotas.require_storage(connection, caller.tenant_id, form.size, service.settings.storage_quota)
            made = files.register(
                connection,
                upload,
                rows,
                budget,
                service.default_model.facts,
                part.marks,
                near,
                wanted.decision,
                mark_of(secret_bytes(service.settings.fingerprint_key)),
            )
            if isinstance(made, files.Registered):
                upload_reports.keep(connection, file_id, found)
        if isinstance(made, Ask):
            questions.keep_marks(service.store, home, file_id, part.marks)
            with service.engine.begin() as connection:
                asked = questions.ask(connection, upload, home, budget, made, found)
            waiting = waiting_file(asked).model_dump()
            return NewlyUploaded(**waiting, budget_inherited=False, question=question_of(asked), report=found)
    except BaseException:
        blobs.delete_all(service.store, files.folder_key(home, file_id))
        raise
    shown = file_of(made.row, caller).model_dump()
    return NewlyUploaded(**shown, budget_inherited=made.inherited, public_overlap=made.public, report=found)
