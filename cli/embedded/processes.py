"""Processes by number: is it still the same one, end it, and find those that carry a mark."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
BEAT = 0.05  # seconds between two looks


@dataclass(frozen=True)
class Process:
    """A process started here (`child`) or found running. The start time tells it from a later one with its number."""

    pid: int
    child: "subprocess.Popen[bytes] | None" = None
    started: str | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "started", _started(self.pid))

    def running(self) -> bool:
        if self.child is not None:
            return self.child.poll() is None
        return self.started is not None and _started(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        if self.running():
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """True as soon as the process is gone, False when it outlives `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > deadline:
                return False
            time.sleep(BEAT)
        return True

    def stop(self, first: signal.Signals, seconds: float, then: signal.Signals = signal.SIGKILL) -> None:
        """Ask with `first`; after `seconds` insist with `then`."""
        self.send(first)
        if not self.wait(seconds):
            self.send(then)
            self.wait(seconds)


def command_line(pid: int) -> list[str]:
    """The words of a process's command line; empty when it is gone or a zombie."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.rstrip(b"\0").split(b"\0") if word]


def marked(name: str, value: str) -> Iterator[int]:
    """The processes whose environment holds name=value: children inherit it, whatever became of their parent."""
    mark = os.fsencode(f"{name}={value}")
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # gone, or another user's
            continue
        if mark in environment.split(b"\0"):
            yield int(entry.name)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """The start time in clock ticks since boot, or None for a process that is gone or a zombie (proc_pid_stat(5))."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    words = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if words[0] in "ZX" else words[19]
