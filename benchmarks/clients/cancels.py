"""How long a new job waits behind others that were submitted and cancelled."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from benchmarks.clients.pollers import JOBS
from benchmarks.clients.served import answered

LOOK = 0.05  # seconds between two looks at a job
PATIENCE = 3600.0  # seconds


def seconds_until_started(
    client: httpx.Client, job: Mapping[str, Any], cancels: int, tell: Callable[[], None]
) -> float:
    """Seconds from the submission of a job until a worker has it, right after so many were submitted and cancelled one
    after the other; `tell` hears of each. A worker has begun a job before, so that it is known to be up.

    Raises RuntimeError when a job does not start at all.
    """
    first = _submit(client, job)
    _wait_until_started(client, first)
    _cancel(client, first)
    for _ in range(cancels):
        _cancel(client, _submit(client, job))
        tell()
    began = time.perf_counter()
    _wait_until_started(client, _submit(client, job))
    return time.perf_counter() - began


def _submit(client: httpx.Client, job: Mapping[str, Any]) -> str:
    return str(answered(client.post(JOBS, json=job))["id"])


def _cancel(client: httpx.Client, id: str) -> None:
    answered(client.post(f"{JOBS}/{id}/cancel"))


def _wait_until_started(client: httpx.Client, id: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while answered(client.get(f"{JOBS}/{id}"))["status"] == "queued":
        if time.monotonic() > deadline:
            raise RuntimeError(f"{id} was not started")
        time.sleep(LOOK)
