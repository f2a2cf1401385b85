"""The marks and sketches of all texts of a file, kept on the disk until all are known: which texts are templates is
known at the end alone."""

import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from domain.ingest.fingerprint import PICTURE, SIZE, form_of, text_mark
from domain.ingest.sketch import BATCH, Sketcher
from domain.ingest.sketch import SIZE as SKETCH
from domain.ingest.spool import KEPT, NUMBER, PARTS, FingerprintParts
from domain.ingest.texts import is_common, is_short

RECORD = 4
"""Bytes of a record's number behind its sketch, little endian."""


class SpooledTexts:
    """By which texts the records of a file are recognised.

    Each text of a record marks it, but for those that are short beside others or common in the file. A record that none
    marks is marked by all its texts joined.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._key, self._sketcher = key, Sketcher(key)
        self._marks, self._joined = FingerprintParts(folder), FingerprintParts(folder)
        self._sketches = tempfile.SpooledTemporaryFile(PARTS * KEPT, dir=os.fspath(folder))  # noqa: SIM115
        self._pending: list[list[int]] = []
        self._sketched = array("Q")
        """The number of the text that each sketch is of."""
        self._records = array("I")
        """The record of each text."""
        self._alone = bytearray()
        """Whether a text is all that its record has: it marks it even where it is common."""
        self._count = 0
        self._sets = False
        """Whether sketches are of pictures, as those of all records of a file are or of none."""

    def add(self, texts: Sequence[str], look: Sequence[str] | None = None) -> None:
        """The next record's texts; of a picture, what it looks like, where that is anything."""
        forms = {form_of(text): text for text in texts}
        for form, text in forms.items():
            if len(forms) == 1 or not is_short(form):
                mark = text_mark([form], self._key)
                self._marks.add(mark, mark + len(self._records).to_bytes(NUMBER))
                self._sketch(text, look)
                self._records.append(self._count)
                self._alone.append(len(forms) == 1)
        if len(forms) > 1:
            joined = text_mark(list(map(form_of, texts)), self._key)
            self._joined.add(joined, joined + self._count.to_bytes(NUMBER))
        self._count += 1

    def write(self, marks: Path, sketches: Path) -> None:
        """Write the marks, each once, one after the other; and the sketches, each with the number of its record."""
        common, marked = bytearray(len(self._records)), bytearray(self._count)
        with marks.open("wb") as target:
            for entries in _entries(self._marks):
                seen = Counter(mark for mark, _ in entries)
                kept = set()
                for mark, text in entries:
                    common[text] = is_common(seen[mark], self._count)
                    if not common[text] or self._alone[text]:
                        marked[self._records[text]] = 1
                        kept.add(mark)
                target.write(b"".join(sorted(kept)))
            for entries in _entries(self._joined):
                target.write(b"".join(sorted({mark for mark, record in entries if not marked[record]})))
        self._write_sketches(sketches, common)

    def _sketch(self, text: str, look: Sequence[str] | None) -> None:
        self._sets = text.startswith(PICTURE)
        hashes = self._sketcher.tokens(look or ()) if self._sets else self._sketcher.words(text)
        if hashes:
            self._pending.append(hashes)
            self._sketched.append(len(self._records))
            if len(self._pending) == BATCH:
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            make = self._sketcher.sketches_of_sets if self._sets else self._sketcher.sketches
            self._sketches.write(make(self._pending).tobytes())
            self._pending = []

    def _write_sketches(self, path: Path, common: bytearray) -> None:
        self._flush()
        self._sketches.seek(0)
        with self._sketches, path.open("wb") as target:
            for text in self._sketched:
                sketch = self._sketches.read(SKETCH)
                if not common[text]:
                    target.write(sketch + self._records[text].to_bytes(RECORD, "little"))


def _entries(parts: FingerprintParts) -> Iterator[list[tuple[bytes, int]]]:
    for part in parts:
        content = part.read()
        width = SIZE + NUMBER
        yield [
            (content[at : at + SIZE], int.from_bytes(content[at + SIZE : at + width]))
            for at in range(0, len(content), width)
        ]
