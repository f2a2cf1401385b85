"""The check itself: records in, Parquet rows and problems out."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from domain.ingest.chat import BadMessages, canonical
from domain.ingest.fingerprint import Kind, fingerprint
from domain.ingest.formats import records
from domain.ingest.problems import Problem, Problems
from domain.ingest.report import UploadReport
from domain.ingest.spool import SpooledMarks, SpooledUsers
from domain.ingest.tally import Tally
from domain.ingest.values import is_text, label_of, user_of
from domain.rows import LABELLED, RowWriter, drop_rows

MOST_LABELS = 1000


class Request(BaseModel):
    """What is checked against what. Everything but the file and the key is public."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    target: Path
    format: str
    task: str = "classification"
    columns: dict[str, str]
    """The file's names for the task's columns in their order, for `label` where it has labels, and for `user`."""
    labels: list[str] | None = None
    """None: publish the labels that are found."""
    declared_size: int | None
    """None: publish the count."""
    key: str | None
    """The tenant's fingerprint key in hexadecimal; None keeps every row, for public files."""
    max_length: int | None = None
    """Tokens of a record; the report counts records that are longer."""
    max_records_per_user: int | None = None
    """A number when the user is the unit, who then needs a column; None when the record is."""
    marks: dict[Kind, Path] = {}
    """Where the fingerprints of all records and users go, sorted, one after the other without separator."""


class Report(BaseModel):
    """What came of it. With any problem the rows are worthless."""

    problems: list[Problem]
    problem_count: int
    labels: list[str] | None
    """None for a task without labels."""
    units: int
    report: UploadReport | None = None
    """What its steward is told; None where there are problems."""


def check(request: Request) -> Report:
    """Read the source, write the rows that are to be kept and the fingerprints of all.

    A private file whose unit is the record keeps one row for each fingerprint, the first in the file; the label of a
    later copy is dropped with it, also when it differs. Where the unit is the user, `RowsByUser` chooses.
    """
    labelled = request.task in LABELLED
    labels = request.labels
    if labelled and labels is None:
        with request.source.open("rb") as source:
            labels = _found_labels(source, request)
    reader = _Reader(request.columns, labels)
    problems = Problems()
    found = 0
    folder, most = request.target.parent, request.max_records_per_user
    by_user = None if most is None else SpooledUsers(folder, most)
    writer = RowWriter(request.target, request.task, users=by_user is not None)
    tally = Tally(
        folder,
        request.columns,
        labels,
        request.max_length,
        private=request.key is not None,
        by_user=by_user is not None,
    )
    keep = _Keep(request, writer, by_user, tally)
    with request.source.open("rb") as source:
        for line, values in records(source, request.format, tuple(request.columns.values()), problems, tally.columns):
            found += 1
            try:
                keep.row(*reader.row(values))
            except _BadValue as bad:
                problems.note(line, bad.code, bad.message)
    for number, (texts, place) in by_user or ():
        writer.add(texts, place, number)
        tally.kept(place)
    writer.close()
    repeated = {kind: marks.write(request.marks.get(kind, Path(os.devnull))) for kind, marks in keep.marks.items()}
    if by_user is not None:
        units = by_user.count
    else:
        units = writer.count - sum(repeated.get("record", b""))
        if units < writer.count:
            drop_rows(request.target, repeated["record"])
    if found == 0 and problems.count == 0:
        problems.note(None, "empty_file", "the file has no record")
    if labels is not None:
        if request.labels is None and len(labels) > MOST_LABELS:
            problems.note(None, "too_many_labels", f"the file has more than {MOST_LABELS} labels")
        if request.key is not None and found and len(labels) < 2:
            problems.note(None, "too_few_labels", "a classifier needs at least two labels")
    if request.declared_size is not None and units > request.declared_size:
        problems.note(None, "declared_size_too_small", "the file has more units than its declared size")
    told = tally.report() if problems.count == 0 else None
    return Report(problems=problems.listed, problem_count=problems.count, labels=labels, units=units, report=told)


class _BadValue(ValueError):
    """A record that cannot be used. The words name the column and hold nothing of the file."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class _Reader:
    """Values as they were written, in the order of the request's columns, made into a row."""

    def __init__(self, columns: Mapping[str, str], labels: Sequence[str] | None) -> None:
        self._columns = columns
        self._places = None if labels is None else {label: place for place, label in enumerate(labels)}

    def row(self, values: Sequence[Any]) -> tuple[tuple[str, ...], int | None, str | None]:
        """Texts, the place of the label and the user. Raises _BadValue."""
        texts: list[str] = []
        place, user = None, None
        for (field, name), value in zip(self._columns.items(), values, strict=True):
            if field == "label":
                place = self._place(name, value)
            elif field == "user":
                user = user_of(value)
                if user is None:
                    raise _BadValue("bad_user", f"'{name}' is not a short text or a whole number")
            else:
                texts.append(_messages(name, value) if field == "messages" else _text(name, value))
        return tuple(texts), place, user

    def _place(self, name: str, value: Any) -> int:
        label = label_of(value)
        if label is None:
            raise _BadValue("bad_label", f"'{name}' is not a short text or a whole number")
        if self._places is None or label not in self._places:
            raise _BadValue("label_not_public", "the label is not one of the public labels")
        return self._places[label]


class _Keep:
    """What happens to a row without problems: fingerprinted if it is private, and written or grouped."""

    def __init__(self, request: Request, writer: RowWriter, by_user: SpooledUsers | None, tally: Tally) -> None:
        self._key = None if request.key is None else bytes.fromhex(request.key)
        self._tally = tally
        self._own_key = self._key or secrets.token_bytes(32)  # what repeats is counted of public files too
        self._writer = writer
        self._by_user = by_user
        kinds: tuple[Kind, ...] = () if self._key is None else ("record", "user")
        self.marks = {kind: SpooledMarks(request.target.parent) for kind in kinds}

    def row(self, texts: tuple[str, ...], place: int | None, user: str | None) -> None:
        mark, owner = fingerprint(texts, self._own_key), None
        if self._key is not None:
            self.marks["record"].add(mark)
            if user is not None:
                owner = fingerprint((user,), self._key, "user")
                self.marks["user"].add(owner)
                if self._by_user is not None:
                    self._by_user.add(owner, mark, (texts, place))
        self._tally.row(texts, place, mark, owner)
        if self._by_user is None:  # later copies of a record are dropped when all are known
            self._writer.add(texts, place)


def _found_labels(source: IO[bytes], request: Request) -> list[str]:
    """All labels in the file, sorted, so that their order tells nothing about the order of the rows."""
    found: set[str] = set()
    for record in records(source, request.format, (request.columns["label"],), Problems()):
        name = label_of(record.values[0])
        if name is not None and len(found) <= MOST_LABELS:
            found.add(name)
    return sorted(found)


def _text(name: str, value: Any) -> str:
    if not is_text(value):
        raise _BadValue("bad_text", f"'{name}' is not a text with at least one character")
    text: str = value
    return text


def _messages(name: str, value: Any) -> str:
    try:
        return canonical(value)
    except BadMessages as error:
        raise _BadValue("bad_messages", f"'{name}' {error}") from None
