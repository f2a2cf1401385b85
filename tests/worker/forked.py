"""Processes forked from one that has imported torch already, in place of `python -m`: as good as new."""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOOK = 0.02  # seconds between two looks at whether a process has ended


class Nursery:
    """The process that forks them; it ends with this one."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.worker.nursery", str(theirs.fileno())],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                pass_fds=[theirs.fileno()],
            )
        self._lines = self._link.makefile("rw")
        self._lock = threading.Lock()
        atexit.register(self._end)

    def ask(self, question: Any) -> Any:
        with self._lock:
            self._lines.write(json.dumps(question) + "\n")
            self._lines.flush()
            return json.loads(self._lines.readline())

    def _end(self) -> None:
        self._link.shutdown(socket.SHUT_RDWR)
        self._process.wait()


@functools.cache
def nursery() -> Nursery:
    """The one of this test process, from the first time that it is needed."""
    return Nursery()


class Forked:
    """A running process, with what tests use of a Popen."""

    def __init__(self, module: str, environment: dict[str, str], log: Path) -> None:
        """Run the module's `main`, with no more than this environment."""
        self.returncode: int | None = None
        self.pid: int = nursery().ask({"module": module, "environment": environment, "log": str(log)})

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = nursery().ask(self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(LOOK)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:  # its number is nobody else's until its end was told
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
