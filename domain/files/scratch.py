"""Uploads under way: a locked file each, so that what a killed process left can be told from what is in use."""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from domain.ingest.marks import Marks, beside
from domain.storage.blobs import Store


@dataclass(frozen=True)
class OpenUpload:
    """An upload under way. `rows` and `marks` are where its checked rows and their marks are written; all of it is gone
    when the upload ends."""

    file: IO[bytes]
    path: Path
    rows: Path
    marks: Marks


def folder(store: Store) -> Path:
    """Beside the blobs where they are a folder, otherwise in TMPDIR. Raises PermissionError when others may look."""
    path = store.folder / "uploads" if store.folder is not None else Path(tempfile.gettempdir()) / "tacit-uploads"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077 or not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{path} must be a folder of this user's alone: uploads pass through it")
    return path


@contextlib.contextmanager
def part(store: Store, file_id: str) -> Iterator[OpenUpload]:
    """A new file to receive an upload into, for this user only."""
    path = folder(store) / f"{file_id}.part"
    rows, marks = path.with_suffix(".rows"), beside(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield OpenUpload(file, path, rows, marks)
        finally:
            for made in (rows, *marks, path):
                made.unlink(missing_ok=True)


def sweep(store: Store) -> list[str]:
    """Remove what dead processes left behind; returns the ids of the files that were being uploaded."""
    dead = []
    for path in folder(store).glob("*.part"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for made in (path.with_suffix(".rows"), *beside(path)):
                made.unlink(missing_ok=True)
            path.unlink()
            dead.append(path.stem)
    return dead
