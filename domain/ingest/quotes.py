"""Whether the quotes of a TSV file belong to its texts, as IANA's registration has it, or were put around fields by a
program that doubles those inside, as pandas, R and spreadsheets do."""

import csv
from collections.abc import Iterable
from typing import IO, Literal

from domain.ingest.lines import LONGEST, lines
from domain.ingest.problems import Problems

Quotes = Literal["text", "marks"]
UNCLEAR = (
    'the quotes can be read in two ways: for example "He said ""no""" as it stands, or as He said "no"; say which: '
    "quotes=text (they belong to the texts) or quotes=marks (a program put them around fields)"
)


def read_quotes(source: IO[bytes], problems: Problems) -> Quotes:
    """How the file's writer meant its quotes; what cannot be told is a problem. The source is at its beginning again.

    A program that puts marks around fields leaves no quote outside of them and doubles those within; it does so for a
    reason (a quote, a tab or a line end inside), or in every row of a column. A spreadsheet does so for a comma too.
    """
    if not _has_quotes(source):
        return "text"
    fields = _Fields()
    even = True
    for number, line in enumerate(lines(source, Problems()), start=1):
        if row := line.rstrip("\r\n").split("\t"):
            even = even and (row == [""] or fields.add(number, row))
    source.seek(0)
    if not even:
        whole = _is_marked(source)
        source.seek(0)
        return "marks" if whole else "text"
    if fields.stray and fields.doubled:
        problems.note(min(fields.stray, fields.doubled), "unclear_quotes", UNCLEAR)
    elif not fields.stray and not fields.doubled and not any(fields.throughout) and fields.comma:
        problems.note(fields.comma, "unclear_quotes", UNCLEAR)
    return "marks" if not fields.stray and (fields.doubled or any(fields.throughout)) else "text"


class _Fields:
    """What the quotes of a file's fields look like; of each kind the first line, 0 where there is none."""

    def __init__(self) -> None:
        self.stray = self.doubled = self.comma = 0
        self.throughout: list[bool] = []
        """Of each column, whether each of its fields is between quotes."""
        self._without_comma = False

    def add(self, number: int, row: list[str]) -> bool:
        """A line's fields; False if it has not as many as the first line has."""
        self.throughout = self.throughout or [True] * len(row)
        if len(row) != len(self.throughout):
            return False
        for place, field in enumerate(row):
            if len(field) < 2 or field[0] != '"' or field[-1] != '"' or '"' in field[1:-1].replace('""', ""):
                self.throughout[place] = False
                if '"' in field:
                    self.stray = self.stray or number
            elif '""' in field[1:-1]:
                self.doubled = self.doubled or number
            elif "," not in field:
                self._without_comma, self.comma = True, 0
            elif not self._without_comma:
                self.comma = self.comma or number
        return True


def _has_quotes(source: IO[bytes]) -> bool:
    found = False
    while not found and (piece := source.read(2**20)):
        found = b'"' in piece
    source.seek(0)
    return found


def _is_marked(source: IO[bytes]) -> bool:
    """Whether the file is whole when tabs and line ends may lie between quotes."""
    csv.field_size_limit(LONGEST)
    try:
        return len({len(row) for row in _marked(lines(source, Problems())) if any(row)}) == 1
    except csv.Error:
        return False


def _marked(text: Iterable[str]) -> Iterable[list[str]]:
    return csv.reader(text, delimiter="\t", strict=True)
