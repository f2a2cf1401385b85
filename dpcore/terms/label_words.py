"""Whether the names of labels are words, from which a head can start, or only tell labels apart."""

import re
from collections.abc import Sequence

from dpcore.terms.tasks import TaskKind

_BETWEEN = re.compile(r"[\W_]+")
_LETTERS = re.compile(r"[^\W\d_]")


def words_of(label: str) -> str:
    """A label's name as one would say it: `card_arrival` is `card arrival`."""
    return _BETWEEN.sub(" ", label).strip()


def are_words(task: TaskKind, labels: Sequence[str]) -> bool:
    """Whether each label of a file of single texts says something of its own: two letters at least, and not the
    letters of another with other numbers, as LABEL_0 and LABEL_1. What a pair's label says is said of no text."""
    letters = ["".join(_LETTERS.findall(label)).casefold() for label in labels]
    return task == "classification" and all(len(word) > 1 for word in letters) and len(set(letters)) == len(labels)
