"""Files as they go over the wire."""

import json
import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi.exceptions import RequestValidationError
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from api.auth import Caller
from api.budgets.schemas import MOST_RECORDS
from api.fields import Body, Name, Reference
from api.files.upload import Form, wrong_field
from domain.files import PRIVATE, PUBLIC
from domain.ingest.check import LONGEST_LABEL, MOST_LABELS
from domain.ingest.formats import SUFFIXES

LARGEST = 10**9
DEFAULT_MAX_LENGTH = 128
_BRACKETS = re.compile(r"(\w+)\[(\w*)\]")


class InlineBudget(Body):
    """A budget opened with the file: `privacy_budget[epsilon]` and so on."""

    epsilon: float = Field(gt=0, le=100)
    delta: float | None = Field(
        default=None,
        ge=1e-30,
        lt=1,
        description="below 1 / declared_size; default: the largest power of ten up to 1 / (10 x declared_size)",
    )
    unit: Literal["record", "user"] = "record"
    max_records_per_user: int | None = Field(default=None, ge=1, le=MOST_RECORDS)
    name: Name | None = None


class Columns(Body):
    """Names of the columns in the file, where they differ: `columns[text]`, `columns[label]`; `columns[user]` for the
    user's id, where there is one."""

    text: Name = "text"
    label: Name = "label"
    user: Name | None = None


def _label_list(value: Any) -> Any:
    """`publish`, a JSON list, or names with commas between them."""
    if isinstance(value, str) and value != "publish":
        if value.startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                raise ValueError("not a JSON list of labels") from None
        else:
            value = [label.strip() for label in value.split(",")]
    return [str(v) if isinstance(v, int) else v for v in value] if isinstance(value, list) else value


Label = Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)]


class NewFile(Body):
    """The form beside the file itself."""

    purpose: Literal["fine-tune", "evals"] = Field(description="`fine-tune`: private rows; `evals`: a public set")
    budget: Reference | None = Field(default=None, description="the budget that the rows belong to, for ever")
    privacy_budget: InlineBudget | None = None
    declared_size: Literal["count"] | Annotated[int, Field(ge=1, le=LARGEST)] | None = Field(
        default=None, description="public; at least the number of units; `count` publishes that number"
    )
    labels: Annotated[
        Literal["publish"] | Annotated[list[Label], Field(min_length=1, max_length=MOST_LABELS)] | None,
        BeforeValidator(_label_list),
    ] = Field(
        default=None, description="the public labels in their order; `publish` publishes those in the file, sorted"
    )
    max_length: int = Field(
        default=DEFAULT_MAX_LENGTH, ge=4, le=8192, description="tokens of a record; the rest is cut"
    )
    columns: Columns = Columns()
    overlap: Literal["same_population", "different_population"] = Field(
        default="same_population",
        description="whose the records and users are that another budget holds: the same people's, so that the file "
        "belongs to that budget, or other people's who match by chance",
    )
    overlap_reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)] | None = (
        Field(default=None, description="why they are other people; it stays in the ledger")
    )

    @field_validator("labels")
    @classmethod
    def _clean(cls, labels: list[str] | str | None) -> list[str] | str | None:
        if isinstance(labels, list):
            if len(set(labels)) != len(labels):
                raise ValueError("a label occurs twice")
            if not all(label.isprintable() and label == label.strip() for label in labels):
                raise ValueError("a label is a line of text without blanks at its ends")
        return labels

    @model_validator(mode="after")
    def _whole(self) -> "NewFile":
        if self.purpose == PUBLIC:
            if self.budget or self.privacy_budget or self.declared_size or self.columns.user or self.overlap_reason:
                raise ValueError(
                    "an evaluation set is public: it has no budget, privacy_budget, declared_size, columns[user] or "
                    "overlap_reason"
                )
            return self
        if (self.overlap == "different_population") != (self.overlap_reason is not None):
            raise ValueError("overlap=different_population comes with an overlap_reason, and nothing else does")
        if (self.budget is None) == (self.privacy_budget is None):
            raise ValueError(
                "a private file belongs to one budget: send budget, or privacy_budget[epsilon] to open one"
            )
        if self.declared_size is None:
            raise ValueError(
                "declared_size is needed: a public number, at least that of the file's units; `count` publishes it"
            )
        if self.labels is None:
            raise ValueError("labels is needed: the public list of labels; `publish` publishes those in the file")
        if isinstance(self.labels, list) and len(self.labels) < 2:
            raise ValueError("labels: a classifier needs at least two")
        return self


def parse_form(form: Form) -> NewFile:
    """The form's fields, checked. Raises RequestValidationError."""
    values: dict[str, Any] = {}
    for name, value in form.fields:
        found = _BRACKETS.fullmatch(name)
        if found is None:
            place, key = values, name
        elif found[2]:
            place, key = values.setdefault(found[1], {}), found[2]
        else:  # a list, sent as name[] repeated
            values.setdefault(found[1], []).append(value)
            continue
        if not isinstance(place, dict) or key in place:
            raise wrong_field(name, "sent more than once")
        place[key] = value
    try:
        parsed = NewFile.model_validate(values)
    except ValidationError as error:
        details = [{**d, "loc": ("body", *d["loc"])} for d in error.errors(include_input=False, include_url=False)]
        raise RequestValidationError(details) from None
    if form.filename is None:
        raise wrong_field("file", "no file was sent")
    if form_format(form.filename) is None:
        raise wrong_field("file", f"the name of the file must end in one of {', '.join(SUFFIXES)}")
    return parsed


def form_format(filename: str) -> str | None:
    """The format that a file name's ending stands for."""
    return SUFFIXES.get(PurePath(filename).suffix.lower())


def safe_name(filename: str) -> str:
    """A file name to show: no folders, no control characters, at most 255 characters."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[-255:] or "file"


class File(BaseModel):
    """A file in OpenAI's shape, and what is public about its privacy.

    Of a private file, anyone but its steward sees the public values alone: bytes is 0 and the name is the id.
    """

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = None
    budget: str | None
    declared_size: int | None
    labels: list[str] | None
    max_length: int | None
    sha256: str | None


class NewlyUploaded(File):
    """The answer to an upload, for its steward."""

    budget_inherited: bool = Field(
        description="no budget was opened: that of the answer holds some of the file's records or users already"
    )


class DeletedFile(BaseModel):
    """The content is gone; what its budget has spent stays spent."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


def file_of(row: sa.Row[Any], caller: Caller) -> File:
    """A row of file, as this caller may see it."""
    open = row.purpose != PRIVATE or caller.may("steward")
    return File(
        id=row.id,
        bytes=row.bytes if open else 0,
        created_at=int(row.created_at.timestamp()),
        filename=row.filename if open else row.id,
        purpose=row.purpose,
        status=row.status,
        budget=row.budget_id,
        declared_size=row.declared_size,
        labels=row.labels,
        max_length=row.max_length,
        sha256=row.sha256 if open else None,
    )
