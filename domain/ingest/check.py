"""The check itself: records in, Parquet rows and problems out."""

from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from domain.ingest.fingerprint import Kind, fingerprint
from domain.ingest.formats import records
from domain.ingest.problems import Problem, Problems
from domain.ingest.users import RowsByUser
from domain.rows import RowWriter

MOST_LABELS = 1000
LONGEST_LABEL = 200
"""Characters of a label."""
LONGEST_USER = 1000
"""Characters of a user's id."""


class Request(BaseModel):
    """What is checked against what. Everything but the file and the key is public."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    target: Path
    format: str
    text: str
    label: str
    labels: list[str] | None
    """None: publish the labels that are found."""
    declared_size: int | None
    """None: publish the count."""
    key: str | None
    """The tenant's fingerprint key in hexadecimal; None keeps every row, for public files."""
    user: str | None = None
    """The column with the user's id, if there is one."""
    max_records_per_user: int | None = None
    """A number when the user is the unit, who then needs a column; None when the record is."""
    marks: dict[Kind, Path] = {}
    """Where the fingerprints of all records and users go, sorted, one after the other without separator."""


class Report(BaseModel):
    """What came of it. With any problem the rows are worthless."""

    problems: list[Problem]
    problem_count: int
    labels: list[str]
    units: int


def check(request: Request) -> Report:
    """Read the source, write the rows that are to be kept and the fingerprints of all.

    A private file whose unit is the record keeps one row for each fingerprint, the first in the file; the label of a
    later copy is dropped with it, also when it differs. Where the unit is the user, `RowsByUser` chooses.
    """
    with request.source.open("rb") as source:
        labels = _found_labels(source, request) if request.labels is None else request.labels
    problems = Problems()
    places = {label: place for place, label in enumerate(labels)}
    columns = (request.text, request.label, *([] if request.user is None else [request.user]))
    found = 0
    by_user = None if request.max_records_per_user is None else RowsByUser(request.max_records_per_user)
    writer = RowWriter(request.target, users=by_user is not None)
    keep = _Keep(request, writer, by_user)
    with request.source.open("rb") as source:
        for line, (text, label, *user) in records(source, request.format, columns, problems):
            found += 1
            name = _label(label)
            if not _usable_text(text):
                problems.note(line, "bad_text", f"'{request.text}' is not a text with at least one character")
            elif name is None:
                problems.note(line, "bad_label", f"'{request.label}' is not a short text or a whole number")
            elif name not in places:
                problems.note(line, "label_not_public", "the label is not one of the public labels")
            elif user and _user(user[0]) is None:
                problems.note(line, "bad_user", f"'{request.user}' is not a short text or a whole number")
            else:
                keep.row(text, places[name], _user(user[0]) if user else None)
    for number, (text, place) in by_user or ():
        writer.add(text, place, number)
    writer.close()
    units = writer.count if by_user is None else len(by_user)
    if found == 0 and problems.count == 0:
        problems.note(None, "empty_file", "the file has no record")
    if request.labels is None and len(labels) > MOST_LABELS:
        problems.note(None, "too_many_labels", f"the file has more than {MOST_LABELS} labels")
    if request.key is not None and found and len(labels) < 2:
        problems.note(None, "too_few_labels", "a classifier needs at least two labels")
    if request.declared_size is not None and units > request.declared_size:
        problems.note(None, "declared_size_too_small", "the file has more units than its declared size")
    for kind, path in request.marks.items():
        path.write_bytes(b"".join(sorted(keep.marks[kind])))
    return Report(problems=problems.listed, problem_count=problems.count, labels=labels, units=units)


class _Keep:
    """What happens to a row without problems: fingerprinted if it is private, and written or grouped."""

    def __init__(self, request: Request, writer: RowWriter, by_user: RowsByUser | None) -> None:
        self._key = None if request.key is None else bytes.fromhex(request.key)
        self._writer = writer
        self._by_user = by_user
        self.marks: dict[Kind, set[bytes]] = {"record": set(), "user": set()}

    def row(self, text: str, place: int, user: str | None) -> None:
        if self._key is None:
            self._writer.add(text, place)
            return
        mark = fingerprint(text, self._key)
        if user is not None:
            owner = fingerprint(user, self._key, "user")
            self.marks["user"].add(owner)
            if self._by_user is not None:
                self._by_user.add(owner, mark, (text, place))
        if self._by_user is None and mark not in self.marks["record"]:
            self._writer.add(text, place)
        self.marks["record"].add(mark)


def _found_labels(source: IO[bytes], request: Request) -> list[str]:
    """All labels in the file, sorted, so that their order tells nothing about the order of the rows."""
    found: set[str] = set()
    for record in records(source, request.format, (request.label,), Problems()):
        name = _label(record.values[0])
        if name is not None and len(found) <= MOST_LABELS:
            found.add(name)
    return sorted(found)


def _usable_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and _encodable(value) and "\0" not in value


def _label(value: Any) -> str | None:
    """A label as text: whole numbers are written out; anything else but a short line of text is None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL and value.isprintable() and value.strip() == value:
        return value
    return None


def _user(value: Any) -> str | None:
    """A user's id as text: whole numbers are written out; anything else but a short text is None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if _usable_text(value) and len(value) <= LONGEST_USER else None


def _encodable(value: str) -> bool:
    """Whether it is Unicode text: JSON may smuggle in half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
