"""Files as they go over the wire."""

import re
from collections.abc import Collection
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import sqlalchemy as sa
from fastapi.exceptions import RequestValidationError
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    create_model,
    field_validator,
)

from api.auth import Caller
from api.budgets.schemas import MOST_RECORDS
from api.fields import Body, Delta, Epsilon, HeldOut, IdInBody, Name
from api.files.upload import Form, wrong_field, wrong_fields
from api.form_text import from_text
from domain.files.whereabouts import Decision
from domain.ingest.check import MOST_LABELS
from domain.ingest.formats import UPLOADED, ZIP, unfit
from domain.ingest.looks import task_of
from domain.ingest.pictures.kept import DEFAULT_RESOLUTION, LEAST_RESOLUTION, MOST_RESOLUTION
from domain.ingest.report import UploadReport
from domain.ingest.values import LONGEST_LABEL, label_of
from domain.kit import strict_json
from domain.kit.purposes import PRIVATE, PUBLIC, RESULT
from dpcore.terms.kind import USER
from dpcore.terms.tasks import COLUMNS, DEFAULT_KIND, KINDS, TaskKind, get_kind, told_by

LARGEST = 10**9
OF_ZIP: TaskKind = "image"
"""The task of a zip that names none."""
DEFAULT_MAX_LENGTH = 128
_BRACKETS = re.compile(r"(\w+)\[(\w*)\]")
_DOTTED = re.compile(r"(\w{1,80})\.(\w{1,80})", re.ASCII)
_FIELD = re.compile(r"\w+")


class PrivacyBudget(Body):
    """A budget opened with the file: `privacy_budget[epsilon]` and so on."""

    epsilon: Epsilon = Field(description="the limit: what all jobs on these people may ever take together")
    delta: Delta | None = Field(
        default=None,
        description="below 1 / declared_size; default: the largest power of ten up to 1 / (10 x declared_size)",
    )
    unit: Literal["record", "user"] = Field(
        default="record", description="who is protected: each record, or each user with all records; for ever"
    )
    max_records_per_user: int | None = Field(
        default=None, ge=1, le=MOST_RECORDS, description="of a user, where that is the unit; further ones are left out"
    )
    held_out: HeldOut = 0.0
    name: Name | None = Field(default=None, description="of the budget, for people; default: the file's id")


class _Columns(Body):
    label: Name | None = None
    user: Name | None = None

    @property
    def sent(self) -> set[str]:
        return {name for name, value in self if value is not None}


if TYPE_CHECKING:
    ColumnNames = _Columns
else:
    ColumnNames = create_model(
        "Columns",
        __base__=_Columns,
        __doc__="Names of the columns in the file, where they differ: `columns[text]`, `columns[label]` and so on; "
        "`columns[user]`\nfor the user's id, where there is one.",
        **dict.fromkeys(COLUMNS, (Name | None, None)),
    )


def _label_list(value: Any) -> Any:
    """`publish`, a JSON list, or names with commas between them."""
    if isinstance(value, str) and value != "publish":
        if value.startswith("["):
            try:
                value = strict_json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("not a JSON list of labels") from None
        else:
            value = [label.strip() for label in value.split(",")]
    return [label_of(v) or v for v in value] if isinstance(value, list) else value


Label = Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)]


class NewFile(Body):
    """The form beside the file itself."""

    purpose: Literal["fine-tune", "evals"] = Field(description="`fine-tune`: private rows; `evals`: a public set")
    budget: IdInBody | None = Field(default=None, description="the budget that the rows belong to, for ever")
    privacy_budget: PrivacyBudget | None = None
    declared_size: Literal["count"] | Annotated[int, Field(ge=1, le=LARGEST)] | None = Field(
        default=None, description="public; at least the number of units; `count` publishes that number"
    )
    task: TaskKind | None = Field(
        default=None,
        description="what the rows are for: it says which columns they have; default: what the names in columns[...] "
        f"tell, otherwise what the file's own name and its columns do, otherwise {DEFAULT_KIND}. "
        + " ".join(f"`{name}` ({', '.join(kind.fields)}): {kind.about}" for name, kind in KINDS.items()),
    )
    labels: Annotated[
        Literal["publish"] | Annotated[list[Label], Field(min_length=1, max_length=MOST_LABELS)] | None,
        BeforeValidator(_label_list),
    ] = Field(
        default=None, description="the public labels in their order; `publish` publishes those in the file, sorted"
    )
    max_length: int = Field(
        default=DEFAULT_MAX_LENGTH, ge=4, le=8192, description="tokens of a record; the rest is cut; not of pictures"
    )
    resolution: int = Field(
        default=DEFAULT_RESOLUTION,
        ge=LEAST_RESOLUTION,
        le=MOST_RESOLUTION,
        description="of pictures: pixels of the shorter side that are kept at most, and twice that of the longer; "
        "larger ones are scaled down; not of texts",
    )
    columns: ColumnNames = ColumnNames()
    quotes: Literal["text", "marks"] | None = Field(
        default=None,
        description="what the quotes of a TSV file are: part of its texts, or put around fields by a program that "
        "doubles those inside; default: what they look like",
    )
    overlap: Literal["same_population", "different_population"] | None = Field(
        default=None,
        description="whose the records and users are that another budget holds, or that resemble its own: the same "
        "people's, so that the file belongs to that budget, or other people's who match by chance; default: what "
        "another budget holds is the same people's, about what resembles it the answer asks",
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

    @property
    def kind(self) -> TaskKind:
        """The task, sent or told by the columns."""
        return self.task or told_by(self.columns.sent)

    @property
    def cap(self) -> int:
        """The file's public length cap: tokens of a text, or the resolution of a picture."""
        return self.resolution if get_kind(self.kind).of_pictures else self.max_length

    @property
    def decision(self) -> Decision | None:
        """What the steward said beforehand of people in other budgets."""
        return None if self.overlap is None else Decision(self.overlap == "same_population", self.overlap_reason)

    @property
    def names(self) -> dict[str, str]:
        """The file's name for each column of the task, and for `user` where users are told."""
        fields = get_kind(self.kind).fields
        told = (*fields, USER) if self.columns.user is not None else fields
        return {field: getattr(self.columns, field) or field for field in told}


def _require_whole(form: NewFile) -> None:
    """What one field says of another. Raises RequestValidationError."""
    kind = get_kind(form.kind)
    for name in sorted(form.columns.sent - {*kind.fields, USER}):
        wanted = ", ".join(kind.fields)
        raise wrong_field(f"columns.{name}", f"columns[{name}]: a file of task {form.kind} has the columns {wanted}")
    if kind.of_pictures and "max_length" in form.model_fields_set:
        raise wrong_field(
            "max_length", "max_length: a picture has no tokens; send resolution, the pixels that are kept"
        )
    if not kind.of_pictures and "resolution" in form.model_fields_set:
        raise wrong_field("resolution", f"resolution: a file of task {form.kind} has texts; send max_length")
    if not kind.labelled and form.labels is not None:
        raise wrong_field("labels", f"labels: a file of task {form.kind} has no labels")
    if form.purpose == PUBLIC:
        for name in ("budget", "privacy_budget", "declared_size", "overlap", "overlap_reason"):
            if getattr(form, name) is not None:
                raise wrong_field(name, f"an evaluation set is public: it has no {name}")
        if form.columns.user is not None:
            raise wrong_field("columns.user", "an evaluation set is public: it has no users to protect")
        return
    if (form.overlap == "different_population") != (form.overlap_reason is not None):
        message = "overlap=different_population comes with an overlap_reason, and nothing else does"
        raise wrong_field("overlap_reason", message)
    missing: dict[str, str] = {}
    if (form.budget is None) == (form.privacy_budget is None):
        message = "a private file belongs to one budget: send budget, or privacy_budget[epsilon] to open one"
        missing["budget"] = message
    if form.declared_size is None:
        message = "declared_size is needed: a public number, at least that of the file's units; `count` publishes it"
        missing["declared_size"] = message
    if kind.labelled and form.labels is None:
        message = (
            f"labels is needed for the task {form.kind}: the public list of labels; `publish` publishes those in the "
            "file. For another task name it"
        )
        missing["labels"] = message
    if kind.labelled and isinstance(form.labels, list) and len(form.labels) < 2:
        missing["labels"] = "labels: a classifier needs at least two"
    if missing:
        raise wrong_fields(missing)


def parse_form(form: Form, names: Collection[str] = ()) -> NewFile:
    """The form's fields, checked; `names`: what the file's own columns are called, where that can be told. Raises
    RequestValidationError."""
    values: dict[str, Any] = {}
    for name, value in form.fields:
        found = _BRACKETS.fullmatch(name)
        if found is None:
            if (dotted := _DOTTED.fullmatch(name)) is not None:
                raise wrong_field(name, f"a field within another one is sent as {dotted[1]}[{dotted[2]}]")
            if not _FIELD.fullmatch(name):
                fields = ", ".join(
                    field for field in NewFile.model_fields if field not in ("columns", "privacy_budget")
                )
                raise wrong_field("", f"unknown field; there are: file, {fields}, columns[...], privacy_budget[...]")
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
        parsed = NewFile.model_validate(from_text(NewFile, values))
    except ValidationError as error:
        details = [{**d, "loc": ("body", *d["loc"])} for d in error.errors(include_input=False, include_url=False)]
        raise RequestValidationError(details) from None
    format = form_format(form.filename or "")
    if parsed.task is None and not parsed.columns.sent - {USER}:
        parsed = parsed.model_copy(update={"task": OF_ZIP if format == ZIP else task_of(names)})
    _require_whole(parsed)
    if form.filename is None:
        raise wrong_field("file", "no file was sent")
    if format is None:
        raise wrong_field("file", f"the name of the file must end in one of {', '.join(UPLOADED)}")
    if (why := unfit(parsed.kind, format)) is not None:
        raise wrong_field("task", why)
    if format == ZIP and (told := sorted(parsed.columns.sent)):
        message = f"columns[{told[0]}]: a zip has no columns: a picture's class is its folder; send Parquet for more"
        raise wrong_field(f"columns.{told[0]}", message)
    return parsed


def form_format(filename: str) -> str | None:
    """The format that a file name's ending stands for."""
    return UPLOADED.get(PurePath(filename).suffix.lower())


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
    task: TaskKind | None
    """None for a result."""
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = None
    budget: str | None
    declared_size: int | None
    labels: list[str] | None
    max_length: int | None
    """Tokens of a record; None for pictures."""
    resolution: int | None = None
    """Pixels of the shorter side of a picture that are kept at most; None for texts."""
    sha256: str | None


class Resembled(BaseModel):
    """A budget that a file's records may belong to."""

    budget: str
    records: int | None = Field(description="of the file, that it holds or that resemble its own; null: unknown")
    files: list[str] = Field(description="those files of the budget that they resemble")


class FileQuestion(BaseModel):
    """What only a steward can say: whether people are in two budgets, or whether private records may be public."""

    id: str = Field(description="of the file")
    object: Literal["file.question"] = "file.question"
    filename: str
    purpose: str
    created_at: int
    budgets: list[Resembled]
    message: str
    answers: list[Literal["same_population", "different_population", "publish"]] = Field(
        description="the first is the safe one; to withdraw the file, delete it"
    )


class NewlyUploaded(File):
    """The answer to an upload, for its steward."""

    budget_inherited: bool = Field(
        description="no budget was opened: that of the answer holds some of the file's records or users already"
    )
    question: FileQuestion | None = Field(
        default=None, description="the file waits for the answer; until then nobody else sees it, and no job may use it"
    )
    public_overlap: dict[str, int] = Field(
        default={},
        description="public files that have some of its texts, or such as they, and how many: a score on them flatters",
    )
    report: UploadReport = Field(description="what the check found that is no problem; later at `/report`")


class DeletedFile(BaseModel):
    """The content is gone; what its budget has spent stays spent."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


def caps(task: TaskKind, cap: int | None) -> tuple[int | None, int | None]:
    """A file's length cap as the tokens of a text, or as the resolution of a picture."""
    return (None, cap) if get_kind(task).of_pictures else (cap, None)


def file_of(row: sa.Row[Any], caller: Caller) -> File:
    """A row of file, as this caller may see it."""
    open = row.purpose != PRIVATE or caller.may("steward")
    max_length, resolution = caps(row.task, row.max_length)
    return File(
        id=row.id,
        bytes=row.bytes if open else 0,
        created_at=int(row.created_at.timestamp()),
        filename=row.filename if open else row.id,
        purpose=row.purpose,
        task=None if row.purpose == RESULT else row.task,
        status=row.status,
        budget=row.budget_id,
        declared_size=row.declared_size,
        labels=row.labels,
        max_length=max_length,
        resolution=resolution,
        sha256=row.sha256 if open else None,
    )
