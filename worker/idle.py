"""Measuring the base models while there is nothing else to do: a process of its own, ended as soon as a job comes."""

import subprocess
import sys
import threading
import time

from celery.worker import state

from worker.log import log

LOOK = 0.5  # seconds between two looks at whether a job has come


class IdleProfiler:
    """A thread that waits until the worker has been idle for a while, and measures what has no profile."""

    def __init__(self, after: float) -> None:
        """after: seconds of idleness."""
        self._after = after
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    def _run(self) -> None:
        while self._wait_for_idleness():
            process = subprocess.Popen(["nice", "-n", "19", sys.executable, "-P", "-m", "worker", "profile"])
            while process.poll() is None and not self._end.wait(LOOK):
                if state.active_requests:
                    break
            if process.poll() is not None:
                if process.returncode:
                    log.warning("measuring the base models failed with exit code %d", process.returncode)
                return
            process.terminate()  # what it had measured is kept; the rest comes at the next idle time
            process.wait()

    def _wait_for_idleness(self) -> bool:
        """False when the worker ends first."""
        since = time.monotonic()
        while not self._end.wait(LOOK):
            if state.active_requests:
                since = time.monotonic()
            elif time.monotonic() - since >= self._after:
                return True
        return False
