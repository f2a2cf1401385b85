"""Which budgets' and public files' texts those of a file resemble, by the sketches that are kept of all."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from domain.ingest.sketch import SIZE, alike
from domain.ingest.spooled_texts import RECORD
from domain.kit.tables import file, sketch

PIECE = 2**16
"""Sketches in a row of the table."""
_ENTRY = np.dtype([("sketch", "u1", SIZE), ("record", f"<u{RECORD}")])


CHANCE = 20
"""Where one text in so many looks like those of another, that is no chance any more."""


@dataclass
class Resemblance:
    """Of a file's records those, by their numbers, that resemble each file of another budget, or each public one.

    A text that is nearly another counts by itself. Of texts that look alike there must be more than chance makes: in a
    field with few words of its own one in a hundred does.
    """

    last: int = 0
    """The last sketches that were looked at."""
    of_budget: dict[str, dict[str, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    of_public: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    nearly: set[str] = field(default_factory=set)
    """Budgets and public files of which some record is nearly one."""
    texts: int = 0
    """Texts of the file that have a sketch."""

    def in_budget(self, budget_id: str) -> int:
        """How many records resemble any of this budget."""
        return len(set().union(*self.of_budget[budget_id].values()))

    @property
    def budgets(self) -> dict[str, list[str]]:
        """The budgets that the file resembles by more than chance, and which files of theirs."""
        return {
            id: sorted(files)
            for id, files in self.of_budget.items()
            if self._is_more_than_chance(id, self.in_budget(id))
        }

    @property
    def public(self) -> dict[str, int]:
        """The public files that it resembles so, and how many records do."""
        return {id: len(found) for id, found in self.of_public.items() if self._is_more_than_chance(id, len(found))}

    def _is_more_than_chance(self, what: str, records: int) -> bool:
        return what in self.nearly or (records * CHANCE >= self.texts and (records >= 3 or 2 * records >= self.texts))


def look(connection: sa.Connection, tenant_id: str, sketches: Path, so_far: Resemblance) -> None:
    """Look at what came since, a piece at a time."""
    so_far.texts = sketches.stat().st_size // _ENTRY.itemsize
    if not so_far.texts:
        return
    there = sketch.join(file, file.c.id == sketch.c.file_id)
    counts = (
        sketch.c.tenant_id == tenant_id,
        sketch.c.id > so_far.last,
        sa.or_(sketch.c.budget_id.is_not(None), file.c.deleted_at.is_(None)),
    )
    size = sa.func.coalesce(sa.func.sum(sa.func.octet_length(sketch.c.packed)), 0)
    expected = int(connection.execute(sa.select(size).select_from(there).where(*counts)).scalar_one()) // SIZE
    numbers = connection.execute(sa.select(sketch.c.id).select_from(there).where(*counts).order_by(sketch.c.id))
    for number in numbers.scalars().all():
        piece = connection.execute(sa.select(sketch).where(sketch.c.id == number)).one()
        theirs = np.frombuffer(piece.packed, dtype=np.uint8).reshape(-1, SIZE)
        found: set[int] = set()
        whose = piece.file_id if piece.budget_id is None else piece.budget_id
        for ours in _pieces(sketches):
            degrees = alike(ours["sketch"], theirs, so_far.texts * expected)
            found.update(ours["record"][degrees > 0].tolist())
            so_far.nearly |= {whose} if 2 in degrees else set()
        if found and piece.budget_id is not None:
            so_far.of_budget[piece.budget_id][piece.file_id] |= found
        elif found:
            so_far.of_public[piece.file_id] |= found
        so_far.last = number


def keep(connection: sa.Connection, tenant_id: str, file_id: str, budget_id: str | None, sketches: Path) -> None:
    """Keep a file's sketches, in pieces."""
    of_file = {"tenant_id": tenant_id, "file_id": file_id, "budget_id": budget_id}
    for ours in _pieces(sketches):
        packed = np.ascontiguousarray(ours["sketch"]).tobytes()
        connection.execute(sketch.insert().values(**of_file, packed=packed))


def _pieces(sketches: Path) -> Iterator[npt.NDArray[np.void]]:
    with sketches.open("rb") as source:
        while len(ours := np.fromfile(source, dtype=_ENTRY, count=PIECE)):
            yield ours
