"""Files that wait for their steward's answer."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import Field, model_validator

from api.auth import Steward
from api.deps import Service, Transaction
from api.fields import Body, Id, Reason
from api.files.schemas import File, FileQuestion, NewlyUploaded, Resembled, caps, file_of
from api.pages import Page, page
from domain.files import files, questions, resemblance, upload_reports
from domain.files.fingerprints import mark_of
from domain.files.resemblance import Resemblance
from domain.files.whereabouts import Ask, Decision
from domain.kit.logs import type_name
from domain.kit.purposes import PUBLIC
from domain.kit.refusals import Conflict
from domain.kit.settings import secret_bytes
from domain.kit.tables import question
from domain.storage.blobs import open_blob

router = APIRouter(prefix="/v1/files", tags=["files"])
Said = Literal["same_population", "different_population", "publish"]
MOST = 1000
logger = logging.getLogger(__name__)


class Answer(Body):
    """A steward's answer about a file that waits."""

    answer: Said
    reason: Reason | None = Field(
        default=None, description="why; needed for all but same_population; it stays on record"
    )

    @model_validator(mode="after")
    def _reasoned(self) -> "Answer":
        if self.answer != "same_population" and self.reason is None:
            raise ValueError("send a reason: why other people match, or why the records may be public")
        return self


@router.get("/questions")
def index(caller: Steward, connection: Transaction) -> Page[FileQuestion]:
    """The files that wait for an answer, the oldest first."""
    rows = connection.execute(
        questions.open_questions(caller.tenant_id).order_by(question.c.created_at).limit(MOST)
    ).all()
    return page(readable(rows), False)


def readable(rows: Sequence[sa.Row[Any]]) -> list[FileQuestion]:
    """Questions; a row that makes none is left out, so that the list does not end at it."""
    found = []
    for row in rows:
        try:
            found.append(question_of(row))
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            what = "ALARM: the question about %s cannot be read (%s): the database was changed"
            logger.error(what, row.file_id, type_name(error))
    return found


@router.post("/{file_id}/answer", status_code=200)
def answer(file_id: Id, body: Answer, caller: Steward, service: Service) -> NewlyUploaded:
    """Say whose the records of a file are that waits, or that it may be public: then it is a file like any other."""
    with service.engine.connect() as connection:
        row = questions.require(connection, caller.tenant_id, file_id)
    if body.answer not in (given := answers_of(row)):
        raise Conflict(f"the answers to this question are {' and '.join(given)}", code="wrong_answer", param="answer")
    upload, budget = questions.asked_for(row)
    decision = Decision(body.answer == "same_population", body.reason)
    home, near = questions.home_of_waiting(row), Resemblance()
    with questions.kept_marks(service.store, home, file_id) as marks:
        with service.engine.connect() as connection:
            resemblance.look(connection, caller.tenant_id, marks.sketches, near)
        seal = open_blob(service.store, files.rows_key(home, file_id)).seal
        with service.engine.begin() as connection:
            questions.require(connection, caller.tenant_id, file_id, lock=True)
            made = files.register(
                connection,
                upload,
                seal,
                budget,
                service.default_model.facts,
                marks,
                near,
                decision,
                mark_of(secret_bytes(service.settings.fingerprint_key)),
            )
            assert not isinstance(made, Ask)  # there is a decision
            upload_reports.keep(connection, file_id, questions.report_of(row))
            questions.answer(connection, file_id, body.answer, caller.key_id, body.reason)
    questions.forget(service.store, row)
    shown = file_of(made.row, caller).model_dump()
    report = questions.report_of(row)
    return NewlyUploaded(**shown, budget_inherited=made.inherited, public_overlap=made.public, report=report)


def waiting_file(row: sa.Row[Any]) -> File:
    """A file that waits, as its steward sees it."""
    upload, budget = questions.asked_for(row)
    max_length, resolution = caps(upload.task, upload.max_length)
    return File(
        id=upload.id,
        bytes=upload.bytes,
        created_at=int(row.created_at.timestamp()),
        filename=upload.filename,
        purpose=upload.purpose,
        task=upload.task,
        status="uploaded",
        status_details=question_of(row).message,
        budget=budget if isinstance(budget, str) else None,
        declared_size=upload.declared_size,
        labels=None if upload.labels is None else list(upload.labels),
        max_length=max_length,
        resolution=resolution,
        sha256=upload.sha256,
    )


def question_of(row: sa.Row[Any]) -> FileQuestion:
    """A row of question."""
    upload, _ = questions.asked_for(row)
    budgets = [Resembled(budget=id, **found) for id, found in sorted(row.found["budgets"].items())]
    return FileQuestion(
        id=row.file_id,
        filename=upload.filename,
        purpose=upload.purpose,
        created_at=int(row.created_at.timestamp()),
        budgets=budgets,
        message=_message(upload.purpose, budgets),
        answers=answers_of(row),
    )


def answers_of(row: sa.Row[Any]) -> list[Said]:
    """What may be said, the safe answer first."""
    if questions.asked_for(row)[0].purpose == PUBLIC:
        return ["publish"]
    return ["same_population", "different_population"]


def _message(purpose: str, budgets: list[Resembled]) -> str:
    if purpose == PUBLIC:
        found = "; ".join(f"{one.records} private records of {one.budget}{_where(one)}" for one in budgets)
        return (
            f"this file was to be public, and has records that are, or resemble, {found}. If they may be public, "
            "answer publish with the reason; otherwise delete the file. Until then nobody but stewards sees it"
        )
    known = [
        f"{one.records} of its records resemble records of {one.budget}{_where(one)}" for one in budgets if one.records
    ]
    lost = [one.budget for one in budgets if one.records is None]
    if lost:
        known.append(f"the records of {', '.join(lost)} cannot be recognised, since their fingerprint key was lost")
    return (
        f"{'; '.join(known)}. Are they the same people? Answer same_population, and the file goes to that budget; or "
        "different_population with the reason, which becomes an entry of the ledgers. Until then nobody but stewards "
        "sees the file"
    )


def _where(one: Resembled) -> str:
    return f" (in {', '.join(one.files)})" if one.files else ""
