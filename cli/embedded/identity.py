"""As whom Postgres runs: it refuses uid 0, so root drops to another user or enters a user namespace."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.embedded.errors import StackError

PROBE = 'test -x "$1" && "$2" --version'


@dataclass(frozen=True)
class Identity:
    """A prefix for the command line, and the user that root drops to."""

    prefix: tuple[str, ...] = ()
    user: pwd.struct_passwd | None = None

    @property
    def owner(self) -> int:
        """The uid that owns the server's files."""
        return os.geteuid() if self.user is None else self.user.pw_uid

    def options(self) -> dict[str, Any]:
        """What subprocess needs to run as this identity."""
        drop = {} if self.user is None else {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return {"cwd": "/", "umask": 0o077, "stdin": subprocess.DEVNULL, **drop}

    def own(self, folder: Path) -> None:
        """Give the folder and all in it to this identity, unless it has it already. Links are not followed."""
        if folder.lstat().st_uid == self.owner:
            return
        group = os.getegid() if self.user is None else self.user.pw_gid
        for parent, folders, files in os.walk(folder):
            for name in folders + files:
                os.lchown(os.path.join(parent, name), self.owner, group)
        os.lchown(folder, self.owner, group)  # last: an interrupted change is seen and done again


def choose(postgres: Path, folder: Path) -> Identity:
    """Find an identity that can run the program `postgres` on the data folder `folder`.

    The folder may have been made under another identity before; `Identity.own` hands it over.
    Raises StackError when root can neither drop nor enter a user namespace.
    """
    if os.geteuid() != 0:
        return Identity()
    user = _user(folder)
    namespace = ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")
    for identity in (Identity(user=user), Identity(prefix=namespace)):
        if _runs(identity, postgres, folder.parent):
            return identity
    raise StackError(
        f"Postgres refuses to run as root. User {user.pw_name!r} cannot reach {postgres} or {folder.parent}, "
        "and user namespaces are not allowed here.\n"
        "Run tacit as an ordinary user, or keep the installation and the data in folders that every user may pass "
        f"(mode o+x on each parent), or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)."
    )


def _user(folder: Path) -> pwd.struct_passwd:
    """The user that owns the folder, else `postgres` or `nobody`. It must have a name: initdb looks it up."""
    if folder.exists() and (owner := folder.stat().st_uid) != 0:
        return pwd.getpwuid(owner)
    by_name = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    for name in ("postgres", "nobody"):
        if name in by_name:
            return by_name[name]
    if not by_name:
        raise StackError("Postgres refuses to run as root, and /etc/passwd names no other user. Add one: useradd tacit")
    return next(iter(by_name.values()))


def _runs(identity: Identity, postgres: Path, parent: Path) -> bool:
    """Try it: the program starts, and the folder's parent can be passed."""
    command = [*identity.prefix, "sh", "-c", PROBE, "sh", str(parent), str(postgres)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=30, **identity.options())
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
