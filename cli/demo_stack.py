"""The stack that a demo runs on, and how long each part of it took."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape

from cli import output
from cli.embedded import lock
from cli.embedded.errors import StackError

START = 180.0  # seconds for the stack to come up, migrations included
console = output.console


@contextlib.contextmanager
def running(data: Path, scratch: Path, workers: int = 1) -> Iterator[tuple[str, str]]:
    """The URL and admin key of a stack on the data folder: the one that runs there, else one of our own with so many
    workers."""
    from cli.embedded.services import die_with
    from cli.embedded.stack import key_file

    address = data / "run" / "address"
    if lock.holder(data) is not None:
        console.print(f"Using the stack that runs on {escape(str(data))}.")
        yield address.read_text(), key_file(data).read_text()
        return
    command = [
        sys.executable,
        "-P",
        "-m",
        "cli",
        "up",
        "--data",
        str(data),
        "--port",
        str(_free_port()),
        "--workers",
        str(workers),
    ]
    log = scratch / "up.log"
    address.unlink(missing_ok=True)
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=die_with(os.getpid())
        )
    try:
        deadline = time.monotonic() + START
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"The stack did not come up:\n{log.read_text().strip()}")
            time.sleep(0.1)
        if not key_file(data).exists():
            raise StackError(f"{key_file(data)} is missing; run the demo on another folder.")
        yield address.read_text(), key_file(data).read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Watch:
    """Seconds from one lap to the next."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.stages: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.stages[name] = round(now - self._last, 1)
        self._last = now

    def total(self) -> float:
        return round(time.monotonic() - self._began, 1)
