"""Room on the disks of this machine, looked at before something large is written rather than after it failed."""

import errno
import os
import shutil
from pathlib import Path


def free(folder: Path) -> int:
    """Bytes that this process may still write there; of a folder that is not there yet, its nearest parent's."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_room(folder: Path, wanted: int, reserve: int) -> None:
    """Raises OSError (ENOSPC) when `wanted` bytes would leave less than `reserve` bytes free."""
    if free(folder) - wanted < reserve:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk before returning."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
