"""A witness in a folder or an object store: an object for each append, numbered without a gap and made only where none
is, so that several services share one order."""

import errno
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore
from pydantic import SecretStr

from domain.kit import disk
from domain.storage import blobs
from ledger.witness import BrokenWitness

PATIENCE = 5.0
"""Seconds that one request may take: the next turn tries again."""
BATCH = 1000
"""Lines that are compared with the database at once."""
AT_ONCE = 8
"""Objects that are fetched at the same time when all are read."""
ENDING = ".jsonl"
logger = logging.getLogger(__name__)


class WitnessStore:
    """A ledger.witness.Place. It remembers the number of the last object that it has read or made."""

    near = False

    def __init__(self, where: str, options: SecretStr | None) -> None:
        """A folder, made when there is something to keep, or an object store's URL. Raises blobs.BadStore."""
        self.name = where
        self._number = 0
        self._folder: Path | None = None
        self._objects: Any = None
        if blobs.is_object_store(where):
            self._objects = blobs.object_store(where, options, "TACIT_SECOND_WITNESS", PATIENCE)
        else:
            self._folder = Path(where.removeprefix("file://")).absolute()
            self._open_folder()

    def locked(self) -> nullcontext[None]:
        """Nothing is locked: of two that append at once the second finds the number taken."""
        return nullcontext()

    shared = locked

    def intact(self) -> bool:
        found = self._number == 0 or self._has(self._number)
        if not found:
            self._number = 0
        return found

    def read(self) -> Iterator[list[bytes]]:
        for number, content in self._unread():
            *lines, rest = content.split(b"\n")
            if rest:
                raise BrokenWitness(f"object {_name(number)} of the witness in {self.name} has no end")
            for start in range(0, len(lines), BATCH):
                yield lines[start : start + BATCH]
            self._number = number

    def append(self, lines: Sequence[bytes]) -> bool:
        name = _name(self._number + 1)
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open_folder()
        with _as_os_error():
            try:
                obstore.put(self._objects, name, b"".join(lines), mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        if self._folder is not None:
            disk.sync(self._folder / name)
            disk.sync(self._folder)
        self._number += 1
        return True

    def _open_folder(self) -> None:
        if self._folder is not None and self._folder.is_dir():
            self._objects = LocalStore(self._folder)

    def _unread(self) -> Iterator[tuple[int, bytes]]:
        if self._number:
            while (content := self._get(self._number + 1)) is not None:
                yield self._number + 1, content
            return
        numbers = self._numbers()
        if numbers and numbers[-1] != len(numbers):
            logger.error("of the witness in %s %d objects are missing", self.name, numbers[-1] - len(numbers))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for start in range(0, len(numbers), 8 * AT_ONCE):
                some = numbers[start : start + 8 * AT_ONCE]
                for number, content in zip(some, pool.map(self._get, some), strict=True):
                    if content is not None:
                        yield number, content

    def _numbers(self) -> list[int]:
        if self._objects is None:
            return []
        with _as_os_error():
            names = [item["path"] for batch in obstore.list(self._objects, chunk_size=1000) for item in batch]
        stems = (name.removesuffix(ENDING) for name in names if name.endswith(ENDING))
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal())

    def _get(self, number: int) -> bytes | None:
        with _as_os_error():
            try:
                return bytes(obstore.get(self._objects, _name(number)).bytes())
            except (FileNotFoundError, NotFoundError):
                return None

    def _has(self, number: int) -> bool:
        with _as_os_error():
            try:
                obstore.head(self._objects, _name(number))
            except (FileNotFoundError, NotFoundError):
                return False
        return True


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except BaseError as error:
        raise OSError(errno.EIO, blobs.reason(error)) from error


def _name(number: int) -> str:
    return f"{number:012d}{ENDING}"
