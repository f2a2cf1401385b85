"""What the names of a file's columns tell: its task, and what to send where they are called otherwise."""

import csv
from collections.abc import Collection
from pathlib import Path

from domain.ingest.lines import LONGEST, lines
from domain.ingest.problems import Problems
from domain.kit import strict_json
from dpcore.terms.kind import LABEL
from dpcore.terms.tasks import COLUMNS, KINDS, TaskKind

_WAYS = {
    ("messages",): "task=chat",
    ("conversations",): "task=chat and columns[messages]=conversations",
    ("conversation",): "task=chat and columns[messages]=conversation",
    ("prompt", "completion"): "task=completion",
    ("instruction", "output"): "columns[prompt]=instruction and columns[completion]=output",
    ("instruction", "response"): "columns[prompt]=instruction and columns[completion]=response",
    ("question", "answer"): "columns[prompt]=question and columns[completion]=answer",
    ("prompt", "response"): "columns[completion]=response",
}
"""Columns that other services and well-known sets have, and what to send with them."""
CONTENT = frozenset(["input", "context", "system", "system_prompt", "instruction", "history", "tools", "functions"])
"""Columns that such sets have beside those that are learnt from, and that say something of each record."""


def first_names(path: Path, format: str) -> list[str]:
    """The columns of the first record of a text file; none where they cannot be told, or for Parquet and zips, which
    are read in a process of their own."""
    if format in ("parquet", "zip"):
        return []
    with path.open("rb") as source:
        line = next((line for line in lines(source, Problems()) if line.strip()), "")
    try:
        if format != "jsonl":
            csv.field_size_limit(LONGEST)
            return next(csv.reader([line], delimiter="\t" if format == "tsv" else ","), [])
        record = strict_json.read(line)
    except (ValueError, csv.Error, RecursionError):
        return []
    return list(record) if isinstance(record, dict) else []


def task_of(names: Collection[str]) -> TaskKind | None:
    """The one kind of task whose columns are all there, that with most of them; None where they tell none, or several.
    A column `text` tells one only when it is alone: others may be labels by another name."""
    found = [name for name, kind in KINDS.items() if set(kind.fields) <= set(names)]
    found = [name for name in found if KINDS[name].fields != ("text",) or set(names) == {"text"}]
    most = max((len(KINDS[name].fields) for name in found), default=0)
    best = [name for name in found if len(KINDS[name].fields) == most]
    rest = [name for name in found if not set(KINDS[name].fields) <= set(KINDS[best[0]].fields)]
    return best[0] if len(best) == 1 and not rest else None


def way_out(names: Collection[str], wanted: Collection[str]) -> str:
    """What to send for a file that has these columns and not those that were wanted, in words; nothing of the file is
    in them but names that everybody knows."""
    known = set(COLUMNS) | {LABEL}
    for columns, send in _WAYS.items():
        if set(columns) <= set(names) and not set(columns) <= set(wanted):
            return f"; with {' and '.join(repr(column) for column in columns)} send {send}"
    missing = sorted(set(wanted) - set(names))
    return f"; for another name send columns[{missing[0]}]" if len(missing) == 1 and missing[0] in known else ""
