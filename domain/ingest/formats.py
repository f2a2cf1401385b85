"""JSONL, CSV, TSV and Parquet, and zips of pictures, as records of named values."""

import csv
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from domain.ingest import parquet
from domain.ingest.columns import FileColumns
from domain.ingest.lines import LONGEST, lines
from domain.ingest.looks import way_out
from domain.ingest.pictures import stored
from domain.ingest.pictures.bad import BadPicture
from domain.ingest.pictures.zips import PictureZip, Unread
from domain.ingest.problems import Problems
from domain.ingest.quotes import Quotes
from domain.kit import strict_json
from dpcore.terms.tasks import TaskKind, get_kind

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
"""File name endings and the formats that they mean, of records with texts."""
ZIP, KEPT = "zip", "kept"
"""An archive of pictures; and pictures as they are kept in rows."""
UPLOADED = SUFFIXES | {".zip": ZIP}
"""Of all that is taken."""


def unfit(task: TaskKind, format: str) -> str | None:
    """What to send for a file of this format and task, in words, where the format cannot hold such records."""
    pictures = get_kind(task).of_pictures
    if pictures and format in SUFFIXES.values() and format != "parquet":
        return (
            f"task: {task} is of pictures, which no {format.upper()} holds: send Parquet with a column of them, or a "
            "zip with a folder for each class"
        )
    if format == ZIP and not pictures:
        return f"task: a zip holds pictures, and {task} is of texts: send task=image, or the texts as JSONL, CSV or TSV"
    return None


class Record(NamedTuple):
    """The values of one record, in the order of the columns asked for, as they were written."""

    line: int
    """Where it begins; in Parquet the number of the row, in a zip that of the entry. All count from 1."""
    values: tuple[Any, ...]


def records(
    source: IO[bytes],
    format: str,
    columns: tuple[str, ...],
    problems: Problems,
    *,
    numbers: frozenset[str] = frozenset(),
    label: str | None = None,
    quotes: Quotes = "text",
    noticed: FileColumns | None = None,
    picture: str | None = None,
    labels: tuple[str, ...] | None = None,
) -> Iterator[Record]:
    """Every record that can be read; what cannot be is noted. Blank lines are skipped, other columns ignored, but for
    what `noticed` is told of all of them.

    numbers: the columns that may be of fractions too, in Parquet, whose types are known; label: that of labels, if any.
    quotes: of TSV. picture: the column of pictures, whose values are bytes, or a BadPicture; labels: with it the public
    ones, if they are given.
    """
    if format == ZIP:
        yield from _zipped(source, columns, problems, noticed, picture, labels)
        return
    if format == KEPT:
        yield from (Record(number, values) for number, values in stored.rows(source, columns, picture or columns[0]))
        return
    if format == "parquet":
        found = parquet.rows(source, columns, problems, numbers, label, picture, labels)
        yield from (Record(number, values) for number, values in found)
        if noticed is not None and problems.count == 0:
            parquet.notice(source, noticed)
        return
    text = lines(source, problems)
    if format == "jsonl":
        yield from _jsonl(text, columns, problems, noticed)
    else:
        yield from _delimited(text, format, quotes, columns, problems, noticed)


def _jsonl(
    text: Iterable[str], columns: tuple[str, ...], problems: Problems, noticed: FileColumns | None
) -> Iterator[Record]:
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            value = strict_json.read(line)
        except strict_json.UnusableJson as error:
            problems.note(number, "unusable_json", str(error))
        except RecursionError:
            problems.note(number, "nested_too_deeply", "the JSON is nested too deeply")
        except ValueError:
            problems.note(number, "not_json", "the line is not valid JSON")
        else:
            if not isinstance(value, dict):
                problems.note(number, "not_an_object", "the line is not a JSON object")
            elif not all(column in value for column in columns):
                told = f"a record has the keys {_named(columns)}{way_out(value, columns)}"
                problems.note(number, "missing_column", told)
            elif why := next(filter(None, map(strict_json.unusable_in, (value[column] for column in columns))), None):
                problems.note(number, "unusable_json", why)
            else:
                if noticed is not None:
                    noticed.named(value)
                yield Record(number, tuple(value[column] for column in columns))


def _zipped(
    source: IO[bytes],
    columns: tuple[str, ...],
    problems: Problems,
    noticed: FileColumns | None,
    picture: str | None,
    labels: tuple[str, ...] | None,
) -> Iterator[Record]:
    archive = PictureZip(source, problems, labels)
    if noticed is not None:
        noticed.empty_classes = archive.empty_classes
    for one in archive.pictures:
        yield Record(one.number, tuple(_entry(archive, one) if name == picture else one.label for name in columns))


def _entry(archive: PictureZip, picture: Unread) -> bytes | BadPicture:
    try:
        return archive.read(picture)
    except BadPicture as bad:
        return bad


def _delimited(
    text: Iterator[str],
    format: str,
    quotes: Quotes,
    columns: tuple[str, ...],
    problems: Problems,
    noticed: FileColumns | None,
) -> Iterator[Record]:
    csv.field_size_limit(LONGEST)
    reader = (
        csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        if format == "tsv" and quotes == "text"
        else csv.reader(text, delimiter="\t" if format == "tsv" else ",", strict=True)
    )
    places: list[int] | None = None
    width, header = 0, [""]
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            problems.note(number, "malformed", "the line is not well-formed: check its quotes and line ending")
            continue
        if not any(row):
            continue
        if places is None:
            if any(row.count(column) != 1 for column in columns):
                problems.note(
                    number,
                    "missing_column",
                    f"the first line names the columns, {_named(columns)} once each"
                    f"{way_out(row, columns) or '; for another name send columns[...]'}",
                )
                return
            places, width, header = [row.index(column) for column in columns], len(row), row
            if noticed is not None:
                noticed.header(row)
        elif len(row) != width:
            problems.note(number, "wrong_width", f"the line has not {width} fields as the first line has")
        elif row == header and width > 1:
            problems.note(
                number,
                "repeated_header",
                "the line names the columns as the first line does, as in a file joined from several: take it out",
            )
        else:
            if noticed is not None:
                noticed.fields(row)
            yield Record(number, tuple(row[place] for place in places))


def _named(columns: tuple[str, ...]) -> str:
    return " and ".join(f"'{column}'" for column in columns)
