"""A zip of pictures: one folder for each class, all at the top or all in one folder, and a picture's class is its
folder's name."""

import struct
import unicodedata
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import IO, NamedTuple

from domain.ingest.pictures.bad import BadPicture, too_many_bytes
from domain.ingest.pictures.bounds import MOST_BYTES, MOST_ENCODED
from domain.ingest.pictures.zip_directory import MOST_ENTRIES, NoArchive, TooManyEntries, count
from domain.ingest.pictures.zip_names import ZipEntry, below_top, entry_of
from domain.ingest.problems import Problems

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    struct.error,
)
"""What reading an entry raises; NotImplementedError is a RuntimeError."""


class Unread(NamedTuple):
    """A picture of an archive that is not read yet."""

    number: int
    info: zipfile.ZipInfo
    label: str


class PictureZip:
    """An archive of pictures. What is wrong with its entries is noted when it is opened."""

    def __init__(self, source: IO[bytes], problems: Problems, labels: Collection[str] | None) -> None:
        self.pictures: list[Unread] = []
        self.empty_classes = 0
        """Folders that would be classes and hold no picture."""
        self._labels = frozenset(labels or ())
        try:
            count(source)
            self._zip = zipfile.ZipFile(source)
        except TooManyEntries:
            problems.note(None, "too_large", f"the archive has more than {MOST_ENTRIES} entries: divide it")
        except (NoArchive, *_BROKEN):
            problems.note(None, "not_zip", "the file cannot be read as a zip")
        else:
            self._look(problems)

    def read(self, picture: Unread) -> bytes:
        """Its bytes, no more than a picture may have. Raises BadPicture."""
        if picture.info.file_size > MOST_BYTES:
            raise too_many_bytes()
        try:
            with self._zip.open(picture.info) as content:
                data = content.read(MOST_BYTES + 1)
        except _BROKEN:
            raise BadPicture("broken_entry", "the entry cannot be unpacked") from None
        if len(data) > MOST_BYTES:
            raise too_many_bytes()
        return data

    def _look(self, problems: Problems) -> None:
        entries = []
        for number, info in enumerate(self._zip.infolist(), start=1):
            try:
                entry = entry_of(number, info)
            except BadPicture as bad:
                problems.note(number, bad.code, bad.message)
            else:
                entries += [] if entry is None else [entry]
        top = below_top(entries)
        self._note_twice(entries, problems)
        self.pictures = list(self._classed(entries, top, problems))
        if sum(picture.info.file_size for picture in self.pictures) > MOST_ENCODED:
            problems.note(
                None, "too_large", f"the pictures have more than {MOST_ENCODED} bytes in all: divide the file"
            )
            self.pictures = []
        found = {picture.label for picture in self.pictures}
        self._note_alike(found, problems)
        folders = {e.parts[top] for e in entries if e.folder and len(e.parts) == top + 1}
        self.empty_classes = len(folders - found)

    def _classed(self, entries: list[ZipEntry], top: int, problems: Problems) -> Iterator[Unread]:
        for entry in entries:
            below = entry.parts[top:]
            if entry.folder:
                continue
            if len(below) == 2:
                yield Unread(entry.number, entry.info, below[0])
            elif len(below) < 2:
                way = "the file lies in no class's folder: put it into one, or leave it out"
                problems.note(entry.number, "outside_classes", way)
            else:
                way = "the file lies in a folder inside a class's folder: a class is one folder, at the top or in one"
                problems.note(entry.number, "too_deep", way)

    def _note_twice(self, entries: list[ZipEntry], problems: Problems) -> None:
        times = Counter(entry.parts for entry in entries if not entry.folder)
        for entry in entries:
            if times[entry.parts] > 1 and not entry.folder:
                problems.note(entry.number, "repeated_name", "two entries of the archive have this name")

    def _note_alike(self, found: Collection[str], problems: Problems) -> None:
        """Names of classes that many file systems cannot tell apart are a mistake, unless both were asked for."""
        alike = defaultdict(set)
        for name in found:
            alike[unicodedata.normalize("NFKC", name).casefold()].add(name)
        if any(len(names) > 1 and not names <= self._labels for names in alike.values()):
            way = "two classes have names that differ in case alone: give them one folder, or name both in labels"
            problems.note(None, "alike_classes", way)
