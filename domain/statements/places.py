"""Where evidence lies: a folder or a ZIP, as nothing but names and bytes."""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

LARGEST = 2**28
"""Bytes of one file of the evidence, the adapter apart."""
_PIECE = 2**20


class BadEvidence(ValueError):
    """Something that does not hold, in words for whoever checks."""


class Evidence(Protocol):
    """A folder or a ZIP."""

    def names(self) -> list[str]:
        """Of all files in it, with `/` between folders."""
        ...

    def read(self, name: str) -> bytes:
        """Raises BadEvidence for a file that is too large."""
        ...

    def digest(self, name: str) -> str:
        """The sha256 of a file of any size."""
        ...


def open_evidence(path: Path) -> Evidence:
    """Raises BadEvidence for what is neither a folder nor a ZIP, and OSError."""
    if path.is_dir():
        return _Folder(path)
    try:
        return _Archive(zipfile.ZipFile(path))
    except zipfile.BadZipFile:
        raise BadEvidence("it is neither a folder nor a ZIP") from None


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        return sorted(p.relative_to(self._path).as_posix() for p in self._path.rglob("*") if not p.is_dir())

    def read(self, name: str) -> bytes:
        path = self._path / name
        if path.stat().st_size > LARGEST:
            raise BadEvidence(f"{name} is too large")
        return path.read_bytes()

    def digest(self, name: str) -> str:
        return digest_of(self._path / name)


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise BadEvidence("a file is in it twice")

    def names(self) -> list[str]:
        return sorted(name for name in self._archive.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        if self._archive.getinfo(name).file_size > LARGEST:
            raise BadEvidence(f"{name} is too large")
        return b"".join(self._pieces(name))

    def digest(self, name: str) -> str:
        found = hashlib.sha256()
        for piece in self._pieces(name):
            found.update(piece)
        return found.hexdigest()

    def _pieces(self, name: str) -> Iterator[bytes]:
        try:
            with self._archive.open(name) as file:
                while piece := file.read(_PIECE):
                    yield piece
        except zipfile.BadZipFile:
            raise BadEvidence(f"{name} is damaged") from None
