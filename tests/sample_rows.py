"""Rows of every kind of task, made from what is said of its columns."""

from typing import Any

from dpcore.terms.kind import LABEL
from dpcore.terms.tasks import get_kind


def row_of(task: str, tag: str, label: Any = None) -> dict[str, Any]:
    """A row whose texts all differ from those of other tags, with this label where the kind has labels."""
    kind = get_kind(task)
    row: dict[str, Any] = {}
    for column in kind.columns:
        said = f"{column.name} {tag}"
        turns = [{"role": role, "content": f"{role}: {said}"} for role in ("user", "assistant")]
        row[column.name] = turns if column.conversation else said
    return row | ({LABEL: label} if kind.labelled else {})
