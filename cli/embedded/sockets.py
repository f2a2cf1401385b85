"""A folder for a unix socket: short enough for the 107 bytes of a socket's path, closed to everyone else."""

import os
import stat
import tempfile
from pathlib import Path

LONGEST = 60  # bytes, leaves room for the name of the socket


def folder_for(record: Path, owner: int | None = None) -> Path:
    """The 0700 folder that the symbolic link `record` names, made anew when it is missing or not ours.

    A restarted server comes back at the same place, so that the URLs handed out stay true. `owner` is the
    user that the server runs as; None for our own.
    """
    uid = os.geteuid() if owner is None else owner
    if record.is_symlink() and _ours(record.readlink(), uid):
        return record.readlink()
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > LONGEST:
        base = "/tmp"  # noqa: S108  (a fresh 0700 folder below it)
    folder = Path(tempfile.mkdtemp(prefix="tacit-", dir=base))
    os.chown(folder, uid, -1)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    record.symlink_to(folder)
    return folder


def forget(record: Path) -> None:
    """Remove the folder after its server has stopped."""
    if not record.is_symlink():
        return
    folder = record.readlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    record.unlink()


def _ours(folder: Path, uid: int) -> bool:
    """Whether the folder is still the one that was made: temporary folders are emptied, and others may write there."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and stat.S_IMODE(status.st_mode) == 0o700
