"""The check itself: records in, Parquet rows and problems out."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict

from domain.ingest.chat import BadMessages, canonical
from domain.ingest.fingerprint import fingerprint
from domain.ingest.formats import records, unfit
from domain.ingest.lots import lot_of_record, lot_of_user
from domain.ingest.marks import Marks
from domain.ingest.person import canonical as canonical_id
from domain.ingest.person import spelled
from domain.ingest.pictures.bad import BadPicture
from domain.ingest.pictures.bounds import TooMuch
from domain.ingest.pictures.kept import DEFAULT_RESOLUTION
from domain.ingest.pictures.picture import Picture, PlainPictures, Stored
from domain.ingest.problems import Problem, Problems
from domain.ingest.quotes import Quotes, read_quotes
from domain.ingest.report import UploadReport
from domain.ingest.spool import SpooledMarks, SpooledUsers
from domain.ingest.spooled_texts import SpooledTexts
from domain.ingest.tally import Tally
from domain.ingest.texts import texts_of
from domain.ingest.values import in_order, is_text, label_of
from domain.storage.rows import RowWriter, drop_rows
from dpcore.terms.kind import LABEL, USER, Kind
from dpcore.terms.tasks import COLUMNS, DEFAULT_KIND, TaskKind, get_kind

MOST_LABELS = 1000


class CheckRequest(BaseModel):
    """What is checked against what. Everything but the file and the key is public."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    target: Path
    format: str
    quotes: Quotes | None = None
    """What those of a TSV file are; None: what they look like."""
    task: TaskKind = DEFAULT_KIND
    columns: dict[str, str]
    """The file's names for the task's columns in their order, for `label` where it has labels, and for `user`."""
    labels: list[str] | None = None
    """None: publish the labels that are found."""
    declared_size: int | None
    """None: publish the count."""
    key: str | None
    """The tenant's fingerprint key in hexadecimal; None: nothing is recognised, not even what repeats later."""
    public: bool = False
    """Of a public file every row is kept, whether it repeats or not."""
    max_length: int | None = None
    """Tokens of a record; the report counts records that are longer."""
    resolution: int = DEFAULT_RESOLUTION
    """Pixels of the shorter side of a picture that is kept."""
    max_records_per_user: int | None = None
    """A number when the user is the unit, who then needs a column; None when the record is."""
    marks: Marks | None = None
    """Where what recognises all records and users goes."""


class CheckReport(BaseModel):
    """What came of it. With any problem the rows are worthless."""

    problems: list[Problem]
    problem_count: int
    labels: list[str] | None
    """None for a task without labels."""
    units: int
    report: UploadReport | None = None
    """What its steward is told; None where there are problems."""


def check(request: CheckRequest) -> CheckReport:
    """Read the source, write the rows that are to be kept and the fingerprints of all.

    Without a key nothing is recognised. A private file whose unit is the record keeps one row for each fingerprint,
    the first in the file; the label of a later copy is dropped with it, also when it differs. Where the unit is the
    user, `RowsByUser` chooses.
    """
    problems = Problems()
    if (why := unfit(request.task, request.format)) is not None:
        problems.note(None, "other_format", why)
        return CheckReport(problems=problems.listed, problem_count=1, labels=request.labels, units=0)
    quotes = request.quotes
    if request.format == "tsv" and quotes is None:
        with request.source.open("rb") as source:
            quotes = read_quotes(source, problems)
    kind, labels = get_kind(request.task), request.labels
    options = _Options(
        numbers=frozenset(v for k, v in request.columns.items() if k in (LABEL, USER)),
        label=request.columns.get(LABEL),
        quotes=quotes or "text",
        picture=request.columns[kind.texts[0]] if kind.of_pictures else None,
        labels=None if labels is None else tuple(labels),
    )
    if kind.labelled and labels is None:
        with request.source.open("rb") as source:
            labels = _found_labels(source, request, options)
    reader = _Reader(request.columns, labels, kind, request.resolution)
    found = 0
    folder, most = request.target.parent, request.max_records_per_user
    by_user = None if most is None else SpooledUsers(folder, most)
    lots = not request.public and request.key is not None
    writer = RowWriter(request.target, request.task, users=by_user is not None, lots=lots)
    tally = Tally(
        folder,
        request.task,
        request.columns,
        labels,
        request.max_length,
        request.resolution,
        private=not request.public,
        by_user=by_user is not None,
    )
    keep = _Keep(request, writer, by_user, tally)
    with request.source.open("rb") as source:
        wanted = tuple(request.columns.values())
        for line, values in records(source, request.format, wanted, problems, noticed=tally.columns, **options):
            found += 1
            try:
                keep.row(reader.row(values))
            except (_BadValue, BadPicture) as bad:
                problems.note(line, bad.code, bad.message)
            except TooMuch as much:
                problems.note(line, "too_large", str(much))
                break
    for number, owner, (texts, place) in by_user or ():
        writer.add(texts, place, number, keep.lot(texts, owner))
        tally.kept(place)
    writer.close()
    repeated = keep.write(request)
    if by_user is not None:
        units = by_user.count
    else:
        units = writer.count - (0 if request.public else sum(repeated))
        if units < writer.count:
            drop_rows(request.target, repeated)
    if found == 0 and problems.count == 0:
        problems.note(None, "empty_file", "the file has no record")
    if labels is not None:
        if request.labels is None and len(labels) > MOST_LABELS:
            problems.note(None, "too_many_labels", f"the file has more than {MOST_LABELS} labels")
        if not request.public and found and len(labels) < 2:
            problems.note(None, "too_few_labels", "a classifier needs at least two labels")
    if request.declared_size is not None and units > request.declared_size:
        problems.note(None, "declared_size_too_small", "the file has more units than its declared size")
    told = tally.report() if problems.count == 0 else None
    return CheckReport(problems=problems.listed, problem_count=problems.count, labels=labels, units=units, report=told)


class _Options(TypedDict):
    """How the values of a file are to be read."""

    numbers: frozenset[str]
    label: str | None
    quotes: Quotes
    picture: str | None
    labels: tuple[str, ...] | None


class _Row(NamedTuple):
    """A record without problems: its texts as they are kept, behind a picture what it is known by; the place of its
    label; its user."""

    texts: tuple[str, ...]
    place: int | None
    user: str | None
    picture: Picture | None = None


class _BadValue(ValueError):
    """A record that cannot be used. The words name the column and hold nothing of the file."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class _Reader:
    """Values as they were written, in the order of the request's columns, made into a row."""

    def __init__(self, columns: Mapping[str, str], labels: Sequence[str] | None, kind: Kind, resolution: int) -> None:
        self._columns, self._kind, self._pictures = columns, kind, PlainPictures(resolution)
        self._places = None if labels is None else {label: place for place, label in enumerate(labels)}

    def row(self, values: Sequence[Any]) -> _Row:
        """Raises _BadValue, BadPicture, and TooMuch where the file cannot be read any further."""
        texts: list[str] = []
        place, user, picture = None, None, None
        for (field, name), value in zip(self._columns.items(), values, strict=True):
            if field == LABEL:
                place = self._place(name, value)
            elif field == USER:
                user = spelled(value)
                if user is None:
                    raise _BadValue("bad_user", f"'{name}' is neither a short text nor a whole number that is exact")
            elif COLUMNS[field].picture:
                picture = self._picture(value)
                texts += [picture.kept, picture.pixels]
            else:
                texts.append(_messages(name, value) if COLUMNS[field].conversation else self._text(field, value))
        return _Row(tuple(texts), place, user, picture)

    def _picture(self, value: Any) -> Picture:
        if isinstance(value, BadPicture):
            raise value
        return self._pictures.stored(value) if isinstance(value, Stored) else self._pictures.picture(value)

    def _place(self, name: str, value: Any) -> int:
        label = label_of(value)
        if label is None:
            what = "has no value" if value in (None, "") else "is not a short line of text or a number"
            raise _BadValue("bad_label", f"'{name}' {what}: leave such records out, or name their class")
        if self._places is None or label not in self._places:
            raise _BadValue(
                "label_not_public", f"'{name}' is not one of the public labels: name it in labels, or leave it out"
            )
        return self._places[label]

    def _text(self, field: str, value: Any) -> str:
        if is_text(value):
            text: str = value
            return text
        name, written = self._columns[field], self._kind.written
        if written and field not in written and isinstance(value, str) and not value.strip():
            rest = self._columns[written[0]]
            way = f"'{name}' is empty; for texts without a beginning send task=text and columns[text]={rest}"
            raise _BadValue("bad_text", way)
        raise _BadValue("bad_text", f"'{name}' is not a text with at least one character")


class _Keep:
    """What happens to a row without problems: marked if there is a key, and written or grouped."""

    def __init__(self, request: CheckRequest, writer: RowWriter, by_user: SpooledUsers | None, tally: Tally) -> None:
        self._key = None if request.key is None else bytes.fromhex(request.key)
        self._task, self._writer, self._by_user, self._tally = request.task, writer, by_user, tally
        self._lots = not request.public and self._key is not None
        self._own_key = self._key or secrets.token_bytes(32)  # what repeats is counted without a key too
        if self._key is not None:
            folder = request.target.parent
            self._texts = SpooledTexts(folder, self._key)
            self._records, self._users, self._old_users = (SpooledMarks(folder) for _ in range(3))

    def row(self, row: _Row) -> None:
        texts, place, user, picture = row
        mark, owner = fingerprint(texts if picture is None else (picture.pixels,), self._own_key), None
        if self._key is not None:
            self._records.add(mark)
            self._texts.add(texts_of(self._task, texts), None if picture is None else picture.look)
            if user is not None:
                owner = self._owner(user, self._key)
                if self._by_user is not None:
                    self._by_user.add(owner, mark, (texts, place))
        self._tally.row(texts, place, mark, owner, picture)
        if self._by_user is None:  # later copies of a record are dropped when all are known
            self._writer.add(texts, place, lot=self.lot(texts))

    def lot(self, texts: Sequence[str], owner: bytes | None = None) -> int | None:
        """Of the row's unit; None where nothing is held out of such files."""
        if not self._lots or self._key is None:
            return None
        return lot_of_record(texts_of(self._task, texts), self._key) if owner is None else lot_of_user(owner, self._key)

    def write(self, request: CheckRequest) -> bytearray:
        """Write what was asked for; answers a byte for each row, 1 where an earlier row has the same texts."""
        if self._key is None:
            return bytearray()
        marks = request.marks or Marks(*[Path(os.devnull)] * 5)
        self._texts.write(marks.records, marks.sketches)
        self._users.write(marks.users)
        self._old_users.write(marks.old_users)
        return self._records.write(marks.old_records)

    def _owner(self, user: str, key: bytes) -> bytes:
        owner = fingerprint((canonical_id(user),), key, "user")
        self._users.add(owner)
        if (before := fingerprint((user,), key, "user")) != owner:
            self._old_users.add(before)
        return owner


def _found_labels(source: IO[bytes], request: CheckRequest, options: "_Options") -> list[str]:
    """All labels in the file in their own order, which tells nothing about the order of the rows."""
    found: set[str] = set()
    for record in records(source, request.format, (request.columns[LABEL],), Problems(), **options):
        name = label_of(record.values[0])
        if name is not None and len(found) <= MOST_LABELS:
            found.add(name)
    return in_order(found)


def _messages(name: str, value: Any) -> str:
    try:
        return canonical(value)
    except BadMessages as error:
        raise _BadValue("bad_messages", f"'{name}' {error}") from None
