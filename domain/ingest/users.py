"""Rows by user, at most so many of each."""

import heapq
from collections.abc import Iterator

TextRow = tuple[tuple[str, ...], int | None]
"""The texts and the place of the label, if there is one."""


class RowsByUser:
    """One row for each of a user's record fingerprints, and of these the `most` rows with the smallest.

    What is kept of a user depends on that user's rows alone: a text that two users share stays with both. Giving it to
    one of them would make what the other contributes change when the first is removed, and the guarantee for a user
    would no longer hold. Nothing depends on the order of the file: the fingerprints are keyed hashes, so that the
    choice is as good as random, and of rows that differ in case or label the smallest stays.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[bytes, dict[bytes, TextRow]] = {}

    def __len__(self) -> int:
        """Users."""
        return len(self._rows)

    def add(self, user: bytes, record: bytes, row: TextRow) -> None:
        """A row of this user; both are known by their fingerprints."""
        rows = self._rows.setdefault(user, {})
        rows[record] = min(row, rows.get(record, row))
        if len(rows) > 2 * self._most:  # so that memory and time do not grow with the rows that are dropped
            self._rows[user] = {mark: rows[mark] for mark in self._smallest(rows)}

    def __iter__(self) -> Iterator[tuple[int, bytes, TextRow]]:
        """Users as numbers from 0, with their fingerprints and each of their rows, all in the order of fingerprints."""
        for number, user in enumerate(sorted(self._rows)):
            rows = self._rows[user]
            for mark in self._smallest(rows):
                yield number, user, rows[mark]

    def _smallest(self, rows: dict[bytes, TextRow]) -> list[bytes]:
        return heapq.nsmallest(self._most, rows)
