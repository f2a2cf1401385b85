"""How often an adapter is right about rows whose label is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.embedded.errors import StackError
from domain.ingest.formats import SUFFIXES, records
from domain.ingest.problems import Problems
from domain.ingest.values import label_of

DEFAULT = "label"
"""The column with the labels, where none is named."""


def labels(file: Path, named: str | None, lines: Sequence[int]) -> list[str | None] | None:
    """The label of each row that begins on these lines, None for a row without one; None for a file that has none.
    Raises StackError where the column was named and there is nothing in it."""
    column, unread = named or DEFAULT, Problems()  # of rows without a label; of all else the first reading told
    with file.open("rb") as source:
        read = records(source, SUFFIXES[file.suffix.lower()], (column,), unread)
        found = {record.line: label_of(record.values[0]) for record in read}
    known = [found.get(line) for line in lines]
    if any(label is not None for label in known):
        return known
    if named is not None:
        raise StackError(f"{file} has no label in a column '{named}'.")
    return None


def scored(answers: Sequence[dict[str, Any]], known: Sequence[str | None]) -> list[dict[str, Any]]:
    """The answers beside what was expected, and whether they are right: empty for a row without a label."""
    return [
        {"label": answer["label"], "expected": label, "right": None if label is None else answer["label"] == label}
        | answer
        for answer, label in zip(answers, known, strict=True)
    ]


def summary(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    """Accuracy with its standard error, over how many rows, and what stayed out of it."""
    judged = [row["right"] for row in rows if row["right"] is not None]
    accuracy = sum(judged) / len(judged)
    error = (accuracy * (1 - accuracy) / len(judged)) ** 0.5
    said = f"Accuracy {accuracy:.3f} \u00b1 {error:.3f} (standard error): {sum(judged)} of {len(judged)} labelled rows."
    if without := len(rows) - len(judged):
        said += f" Rows without a label: {without}."
    if strangers := sum(row["expected"] not in labels for row in rows if row["expected"] is not None):
        said += f" Wrong whatever is answered, as the adapter has no such label: {strangers}."
    return said
