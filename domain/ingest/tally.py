"""Counting for an upload's report as its rows stream by: memory does not grow with the file."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from domain.ingest import questions
from domain.ingest.columns import FileColumns
from domain.ingest.pictures.picture import Picture
from domain.ingest.pictures.seen import PicturesSeen
from domain.ingest.report import ClassCount, Conflicts, Lengths, UploadReport, shown
from domain.ingest.spooled_labels import KEY, SpooledLabels, SpooledPairs
from domain.ingest.texts import texts_of
from dpcore.terms.kind import USER
from dpcore.terms.tasks import TaskKind, get_kind

_PIECE = re.compile(r"\w+|[^\w\s]")
"""Words and punctuation marks."""
_MAY_BE_MARKS = bytes(byte for byte in range(256) if byte >= 128 or re.match(r"[^\w\s]", chr(byte)))
"""Of UTF-8: ASCII's marks, and all bytes of other characters."""
NO_LABEL = -1


class Tally:
    """Counts the rows of one file.

    `task`, `columns`: the request's; `by_user`: whether the user is the unit; `private`: whether repeated records are
    dropped.
    """

    def __init__(
        self,
        folder: Path,
        task: TaskKind,
        columns: Mapping[str, str],
        labels: Sequence[str] | None,
        max_length: int | None,
        resolution: int,
        *,
        private: bool,
        by_user: bool,
    ) -> None:
        self._pictures = PicturesSeen(resolution) if get_kind(task).of_pictures else None
        max_length = max_length if self._pictures is None else None
        self._task, self._labels, self._max_length, self._private = task, labels, max_length, private
        used = [name for field, name in columns.items() if field != USER]
        self.columns = FileColumns(folder, used, columns.get(USER), follow=private and not by_user)
        self._marks = SpooledLabels(folder)
        self._pairs = SpooledPairs(folder) if by_user else None
        self._read: Counter[int] = Counter()
        self._kept: Counter[int] = Counter()
        self._words: Counter[int] = Counter()
        self._long = 0

    def row(
        self, texts: Sequence[str], place: int | None, record: bytes, user: bytes | None, picture: Picture | None = None
    ) -> None:
        """A row without problems: its texts, the place of its label, what it and its user are known by, and its picture
        where it is one."""
        place = NO_LABEL if place is None else place
        self._read[place] += 1
        self._marks.add(record[:KEY], place)
        if self._pairs is not None and user is not None:
            self._pairs.add(user, record)
        if self._pictures is not None and picture is not None:
            self._pictures.add(picture)
            return
        said = " ".join(texts_of(self._task, texts))
        words = len(said.split())
        self._words[words] += 1
        if self._max_length is not None and len(said) > self._max_length:
            self._long += _is_longer(said, words, self._max_length)

    def kept(self, place: int | None) -> None:
        """A row that stays of its user, where the user is the unit."""
        self._kept[NO_LABEL if place is None else place] += 1

    def report(self) -> UploadReport:
        """What all rows come to; once."""
        self._marks.count()
        read = self._read.total()
        if self._pairs is not None:
            different, kept = self._pairs.count(), self._kept
        else:
            different = self._marks.first.total()
            kept = self._marks.first if self._private else self._read
        conflicts = Conflicts(texts=self._marks.texts, records=self._marks.records)
        classes = {
            label: ClassCount(read=self._read[place], kept=kept[place])
            for place, label in enumerate(self._labels or ())
        }
        return UploadReport(
            read=read,
            kept=kept.total(),
            repeated=read - different,
            conflicts=conflicts,
            dropped_by_user_bound=different - kept.total() if self._pairs is not None else 0,
            max_length=self._max_length,
            longer_than_max_length=self._long,
            classes=classes,
            length=_lengths(self._words) if self._pictures is None else None,
            pictures=None if self._pictures is None else self._pictures.sides(),
            unused_columns=[shown(name) for name in self.columns.unused],
            questions=[
                *questions.person_columns(self.columns.count()),
                *questions.unused_texts(self.columns.held()),
                *questions.odd_classes(classes, self.columns.names),
                *(questions.single_records(classes) if self._pictures is not None and self._private else ()),
                *questions.empty_classes(self.columns.empty_classes),
                *questions.conflicting_labels(conflicts, self._which(), self._what),
                *questions.many_repeated(read - different, read, kept=not self._private),
            ],
        )

    @property
    def _what(self) -> str:
        return "texts" if self._pictures is None else "pictures"

    def _which(self) -> str:
        if not self._private:
            return "all are kept"
        return "of each user the first class in the list stays" if self._pairs is not None else "the first record stays"


def _is_longer(text: str, words: int, most: int) -> bool:
    """Whether it has more words and punctuation marks; they are counted only where bounds leave it open."""
    if words > most:
        return True
    content = text.encode()
    marks = len(content) - len(content.translate(None, _MAY_BE_MARKS))  # no fewer than there are
    # Each mark is one more, and may make two of a word.
    return words + 2 * marks > most and len(_PIECE.findall(text)) > most


def _lengths(words: Counter[int]) -> Lengths:
    """By nearest rank: the smallest length that so large a share of the records does not exceed."""
    ranks = {"min": 1, **{name: math.ceil(share * words.total() / 100) for name, share in _SHARES.items()}}
    found: dict[str, int] = {}
    passed = 0
    for length, count in sorted(words.items()):
        passed += count
        found |= {name: length for name, rank in ranks.items() if name not in found and rank <= passed}
    return Lengths.model_validate({name: found.get(name, 0) for name in ranks})


_SHARES = {"median": 50, "p90": 90, "p99": 99, "max": 100}
