"""A witness in a file: appended to under a lock, by any number of processes on one machine."""

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ledger.witness import BrokenWitness

BATCH = 1000
"""Lines that are compared with the database at once."""
CHUNK = 2**16
LONGEST = 2**14
"""Bytes of a line; ours have some 300."""
logger = logging.getLogger(__name__)


class WitnessFile:
    """A ledger.witness.Place. What it remembers of the file is how far it was read, and the last line until there."""

    near = True

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._file = -1
        self._identity: tuple[int, int] | None = None
        self._end = 0
        self._last = b""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the file if it is missing. Without the right to write, it can still be read and compared."""
        self._file = self._open_locked()
        try:
            yield
        finally:
            self._close()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """So that who starts and reads a long file keeps nobody from appending."""
        with suppress(FileNotFoundError):
            self._file = os.open(self._path, os.O_RDONLY)
        try:
            yield
        finally:
            self._close()

    def intact(self) -> bool:
        now, last = None, b""
        if self._file >= 0:
            state = os.fstat(self._file)
            now = (state.st_dev, state.st_ino)
            last = os.pread(self._file, len(self._last), self._end - len(self._last))
        found = self._identity is None or (self._identity == now and self._last == last)
        self._identity = now
        if not found:
            self._end, self._last = 0, b""
        return found

    def read(self) -> Iterator[list[bytes]]:
        rest, batch, end = b"", list[bytes](), self._end
        while self._file >= 0 and (piece := os.pread(self._file, CHUNK, end + len(rest))):
            *lines, rest = (rest + piece).split(b"\n")
            if max(map(len, [rest, *lines])) > LONGEST:
                raise BrokenWitness(f"a line of the witness in {self.name} has no end")
            batch += lines
            end += sum(len(line) + 1 for line in lines)
            if len(batch) >= BATCH:
                yield batch
                self._passed(end, batch)
                batch = []
        if batch:
            yield batch
            self._passed(end, batch)
        # What is left was cut off by a crash before anything relied on it: `append` takes it away.

    def append(self, lines: Sequence[bytes]) -> bool:
        file = os.open(self._path, os.O_WRONLY)  # anew: where only reading is allowed, this says why
        try:
            if os.fstat(file).st_size > self._end:  # a line after it would be broken too
                logger.warning("the witness in %s ended in the middle of a line, which is taken away", self.name)
                os.ftruncate(file, self._end)
            data = b"".join(lines)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(file, data[written:], self._end + written)
                os.fsync(file)
            except OSError:
                os.ftruncate(file, self._end)
                raise
        finally:
            os.close(file)
        if not self._end:
            _sync_folder(self._path)
        self._end += len(data)
        self._last = lines[-1]
        return True

    def _passed(self, end: int, batch: Sequence[bytes]) -> None:
        self._end, self._last = end, batch[-1] + b"\n"

    def _open_locked(self) -> int:
        while True:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError:
                try:
                    file = os.open(self._path, os.O_RDONLY)
                except FileNotFoundError:
                    return -1  # it cannot be made: `append` says why
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file), os.stat(self._path))
            except FileNotFoundError:
                same = False
            if same:
                return file
            os.close(file)  # somebody put another in its place before the lock was ours

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
