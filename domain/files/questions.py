"""Files that wait for their steward's answer: for nobody else they do not exist.

Such a file has no row of `file`, no budget and no place in any list; its rows and its marks lie encrypted until the
answer makes it a file, or withdraws it.
"""

import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from domain.files import scratch
from domain.files.files import InlineBudget, Upload, folder_key, rows_key
from domain.files.whereabouts import Ask
from domain.ingest.marks import Marks
from domain.ingest.report import UploadReport
from domain.kit.refusals import Conflict, NotFound
from domain.kit.tables import question
from domain.storage import blobs
from domain.storage.blobs import Store, open_blob
from domain.storage.homes import GENERAL, home_of


def marks_key(home: str, file_id: str) -> str:
    """Where the marks of a file lie that waits."""
    return f"{folder_key(home, file_id)}marks"


def keep_marks(store: Store, home: str, file_id: str, marks: Marks) -> None:
    """Store the marks for the time of the answer, beside the file's rows."""
    with tempfile.NamedTemporaryFile(dir=scratch.folder(store.at(home))) as packed:
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, path in asdict(marks).items():
                tar.add(path, name)
        packed.flush()
        blobs.put_file(store, marks_key(home, file_id), Path(packed.name))


@contextmanager
def kept_marks(store: Store, home: str, file_id: str) -> Iterator[Marks]:
    """The marks of a file that waits; gone when the block ends."""
    with tempfile.TemporaryDirectory(dir=scratch.folder(store.at(home))) as name:
        with (
            blobs.as_file(open_blob(store, marks_key(home, file_id))) as packed,
            tarfile.open(fileobj=packed, mode="r") as tar,
        ):
            tar.extractall(name, filter="data")
        yield Marks(*(Path(name) / field.name for field in fields(Marks)))


def ask(
    connection: sa.Connection,
    upload: Upload,
    home: str,
    budget: str | InlineBudget | None,
    ask: Ask,
    report: UploadReport,
) -> sa.Row[Any]:
    """Let a file wait: what was asked for, where it lies, and what the steward has to decide about."""
    wanted = asdict(budget) if isinstance(budget, InlineBudget) else budget
    values = {
        "file_id": upload.id,
        "tenant_id": upload.tenant_id,
        "upload": json.loads(
            json.dumps(
                {"upload": asdict(upload), "home": home, "budget": wanted, "report": report.model_dump()}, default=str
            )
        ),
        "found": asdict(ask),
    }
    return connection.execute(question.insert().values(**values).returning(question)).one()


def home_of_waiting(row: sa.Row[Any]) -> str:
    """Where the file lies that a question is about."""
    return home_of(str(row.upload.get("home", GENERAL)))


def report_of(row: sa.Row[Any]) -> UploadReport:
    """What the check of the upload found that a question is about."""
    return UploadReport.model_validate(row.upload["report"])


def asked_for(row: sa.Row[Any]) -> tuple[Upload, str | InlineBudget | None]:
    """What the upload asked for that a question is about."""
    upload, budget = Upload(**row.upload["upload"]), row.upload["budget"]
    if isinstance(budget, dict):
        delta = budget["delta"]
        exact = {"epsilon": Decimal(budget["epsilon"]), "delta": None if delta is None else Decimal(delta)}
        exact |= {"held_out": Decimal(budget.get("held_out", "0"))}  # an earlier version held nothing out
        budget = InlineBudget(**budget | exact)
    return upload, budget


def open_questions(tenant_id: str) -> sa.Select[Any]:
    """The tenant's questions that nobody has answered."""
    return sa.select(question).where(question.c.tenant_id == tenant_id, question.c.answer.is_(None))


def require(connection: sa.Connection, tenant_id: str, file_id: str, *, lock: bool = False) -> sa.Row[Any]:
    """The question about a file. Raises NotFound, and Conflict where it was answered."""
    wanted = sa.select(question).where(question.c.tenant_id == tenant_id, question.c.file_id == file_id)
    row = connection.execute(wanted.with_for_update() if lock else wanted).one_or_none()
    if row is None or row.answer == "withdrawn":
        raise NotFound("file")
    if row.answer is not None:
        raise Conflict(f"the question about {file_id} was answered: {row.answer}", code="already_answered")
    return row


def answer(connection: sa.Connection, file_id: str, said: str, by: str, reason: str | None) -> None:
    """Write down what the steward decided; the row is locked by `require`."""
    values = {"answer": said, "answered_by": by, "reason": reason}
    connection.execute(sa.update(question).where(question.c.file_id == file_id).values(values))


def forget(store: Store, row: sa.Row[Any], *, rows: bool = False) -> None:
    """Remove what was kept for the answer; `rows`: of a file that was withdrawn, those too."""
    home = home_of_waiting(row)
    blobs.delete(store, marks_key(home, row.file_id))
    if rows:
        blobs.delete(store, rows_key(home, row.file_id))
