"""Measuring waits for idleness and makes way for a job."""

import subprocess
import time
from collections.abc import Callable

import pytest
from celery.worker import state

from worker import idle


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_ends_the_measuring_and_idleness_begins_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    programs = [["sleep", "60"], ["true"]]
    popen = subprocess.Popen

    def start(command: list[str]) -> "subprocess.Popen[bytes]":
        assert command[-3:] == ["-m", "worker", "profile"]
        started.append(popen(programs[len(started)]))
        return started[-1]

    monkeypatch.setattr(idle, "LOOK", 0.01)
    monkeypatch.setattr(subprocess, "Popen", start)
    job = subprocess.CompletedProcess([], 0)  # anything that a weak set can hold
    state.active_requests.add(job)
    profiler = idle.IdleProfiler(after=0.1)
    try:
        profiler.start()
        time.sleep(0.3)
        assert started == []  # a job is running
        state.active_requests.discard(job)
        until(lambda: len(started) == 1)
        state.active_requests.add(job)
        until(lambda: started[0].poll() is not None)
        time.sleep(0.3)
        assert len(started) == 1
        state.active_requests.discard(job)
        until(lambda: len(started) == 2 and not profiler._thread.is_alive())  # measured: it does not begin again
    finally:
        state.active_requests.discard(job)
        profiler.stop()
