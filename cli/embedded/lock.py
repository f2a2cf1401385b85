"""One `tacit up` per data folder, held by the kernel: a lock cannot outlive its process."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cli.embedded.errors import StackError


@contextlib.contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold the folder. Raises StackError, naming the process that has it."""
    descriptor = os.open(_path(data), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode() or "unknown"
            raise StackError(
                f"{data} is in use by another `tacit up` (pid {pid}). Stop it with: tacit down --data {data}\n"
                "or start this one on a folder of its own with --data."
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def holder(data: Path) -> int | None:
    """The pid of the `tacit up` that holds the folder, or None."""
    try:
        descriptor = os.open(_path(data), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 20) or 0) or None
    finally:
        os.close(descriptor)
    return None


def _path(data: Path) -> Path:
    return data / "lock"
