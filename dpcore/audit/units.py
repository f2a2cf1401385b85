"""Canaries: made-up records, or users with some each, whose words and labels come from a public seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcore.audit.little import WORDS
from dpcore.terms.kind import Kind
from dpcore.terms.program import Unit
from dpcore.terms.tasks import TaskKind, get_kind

LABELS = tuple(f"label {i}" for i in range(16))
"""So many that gradients of classifiers go many ways."""
LENGTH = 6
"""Words of a text."""
RECORDS_EACH = 3
"""Of a user. They are one text in other orders of its words, with one label, so that they pull the same way: whoever
clips them one by one lets them pull three times as hard."""


@dataclass(frozen=True)
class MadeUpUnits:
    """columns: of all records, as a file has them; labels: positions in the public set, zeros without one; owners: the
    user of each record, int64 [n], where the unit is the user."""

    columns: Mapping[str, Sequence[str]]
    labels: np.ndarray
    owners: np.ndarray | None

    def __len__(self) -> int:
        """How many units."""
        return len(self.labels) if self.owners is None else int(self.owners[-1]) + 1

    def of(self, unit: int) -> np.ndarray:
        """Places of a unit's records: int64 [k]."""
        return np.array([unit]) if self.owners is None else np.flatnonzero(self.owners == unit)

    def only(self, included: np.ndarray) -> "MadeUpUnits":
        """The file that holds those with a true coin, bool [units], and no trace of the others."""
        if self.owners is None:
            kept, owners = np.flatnonzero(included), None
        else:
            kept = np.flatnonzero(included[self.owners])
            owners = (np.cumsum(included) - 1)[self.owners[kept]]
        columns = {name: [values[i] for i in kept.tolist()] for name, values in self.columns.items()}
        return MadeUpUnits(columns, self.labels[kept], owners)

    def encode(self, task: Any) -> Any:
        """The records as the task has them."""
        return task.encode(self.columns, self.labels.tolist())


def make(count: int, kind: TaskKind, unit: Unit, *, seed: int = 0, length: int = LENGTH) -> MadeUpUnits:
    """So many canaries for tasks of this kind."""
    draws, told = np.random.default_rng(seed), get_kind(kind)
    each = 1 if unit == "record" else RECORDS_EACH
    labels = np.repeat(draws.integers(len(LABELS), size=count), each) if told.labelled else np.zeros(count * each, int)
    words = {column: draws.choice(WORDS, size=(count, length)) for column in told.texts}
    columns: dict[str, list[str]] = {column: [] for column in told.texts}
    for i in range(count):
        for _ in range(each):
            order = draws.permutation(length) if each > 1 else np.arange(length)
            for column in told.texts:
                columns[column].append(_value(told, column, words[column][i][order].tolist()))
    return MadeUpUnits(columns, labels, np.repeat(np.arange(count), each) if unit == "user" else None)


def _value(kind: Kind, column: str, words: list[str]) -> str:
    """A cell of words: a text, or a conversation of a question and an answer."""
    (told,) = [one for one in kind.columns if one.name == column]
    if not told.conversation:
        return " ".join(words)
    half = len(words) // 2
    turns = [("user", words[:half]), ("assistant", words[half:])]
    return json.dumps([{"role": role, "content": " ".join(said)} for role, said in turns])
