"""The check itself: records in, Parquet rows and problems out."""

from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from domain.ingest.fingerprint import fingerprint
from domain.ingest.formats import records
from domain.ingest.problems import Problem, Problems
from domain.rows import RowWriter

MOST_LABELS = 1000
LONGEST_LABEL = 200
"""Characters of a label."""


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


class Report(BaseModel):
    """What came of it. With any problem the rows are worthless."""

    problems: list[Problem]
    problem_count: int
    labels: list[str]
    units: int


def check(request: Request) -> Report:
    """Read the source, write the rows that are to be kept.

    A private file keeps one row for each fingerprint, the first in the file; the label of a later copy is dropped
    with it, also when it differs.
    """
    with request.source.open("rb") as source:
        labels = _found_labels(source, request) if request.labels is None else request.labels
    problems = Problems()
    places = {label: place for place, label in enumerate(labels)}
    key = None if request.key is None else bytes.fromhex(request.key)
    seen: set[bytes] = set()
    found = 0
    writer = RowWriter(request.target)
    with request.source.open("rb") as source:
        for line, (text, label) in records(source, request.format, (request.text, request.label), problems):
            found += 1
            name = _label(label)
            if not _usable_text(text):
                problems.note(line, "bad_text", f"'{request.text}' is not a text with at least one character")
            elif name is None:
                problems.note(line, "bad_label", f"'{request.label}' is not a short text or a whole number")
            elif name not in places:
                problems.note(line, "label_not_public", "the label is not one of the public labels")
            elif key is None:
                writer.add(text, places[name])
            elif (mark := fingerprint(text, key)) not in seen:
                seen.add(mark)
                writer.add(text, places[name])
    writer.close()
    if found == 0 and problems.count == 0:
        problems.note(None, "empty_file", "the file has no record")
    if request.labels is None and len(labels) > MOST_LABELS:
        problems.note(None, "too_many_labels", f"the file has more than {MOST_LABELS} labels")
    if key is not None and found and len(labels) < 2:
        problems.note(None, "too_few_labels", "a classifier needs at least two labels")
    if request.declared_size is not None and writer.count > request.declared_size:
        problems.note(None, "declared_size_too_small", "the file has more units than its declared size")
    return Report(problems=problems.listed, problem_count=problems.count, labels=labels, units=writer.count)


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


def _encodable(value: str) -> bool:
    """Whether it is Unicode text: JSON may smuggle in half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
