"""Keeps processes running: one that ends is reported and started again, later each time that it fails soon."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cli.embedded.errors import StackError
from cli.embedded.processes import Process

LONGEST = 30.0  # seconds between two attempts
STEADY = 60.0  # seconds after which an earlier failure no longer counts
PAUSE = 0.2


@dataclass
class Kept:
    """One process that should run."""

    name: str
    start: Callable[[], Process]
    process: Process | None = None
    failures: int = 0
    since: float = 0.0
    retry_at: float | None = None

    def begin(self) -> None:
        self.process = self.start()
        self.since, self.retry_at = time.monotonic(), None

    def look(self, say: Callable[[str], None]) -> None:
        """Report an end, and start again when its pause is over."""
        now = time.monotonic()
        if self.retry_at is None:
            if self.process is not None and self.process.running():
                return
            self.failures = 1 if now - self.since > STEADY else self.failures + 1
            pause = min(LONGEST, 2.0 ** (self.failures - 1))
            say(f"{self.name} ended unexpectedly{self._how()}; starting it again in {pause:.0f} s")
            self.retry_at = now + pause
        elif now >= self.retry_at:
            try:
                self.begin()
            except StackError as error:
                say(f"{self.name}: {error}")
                self.since, self.retry_at = now, None
                self.process = None
            else:
                say(f"{self.name} runs again")

    def _how(self) -> str:
        code = None if self.process is None or self.process.child is None else self.process.child.returncode
        if code is None:
            return ""
        return f" (signal {-code})" if code < 0 else f" (exit code {code})"


def keep(processes: Iterable[Kept], say: Callable[[str], None]) -> None:
    """Watch for ever; ends by an exception, such as the one that a signal handler raises."""
    watched = list(processes)
    while True:
        for each in watched:
            each.look(say)
        time.sleep(PAUSE)
