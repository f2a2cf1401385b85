"""Clients that ask without end, in a process of their own: what a dashboard and a script that waits for a job do."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import httpx

JOBS = "/v1/fine_tuning/jobs"
MIX = {"get": 60, "events": 20, "list": 15, "create": 3, "estimate": 2}
"""How often each is asked. Who creates a job also cancels it, so that the queue keeps its length."""


@dataclass(frozen=True)
class Load:
    """What one round asks of the service."""

    requests: int
    pause: float
    """Seconds, on average, that a client waits between two requests; 0: it asks again at once."""


@dataclass(frozen=True)
class Crowd:
    """The clients and what they know."""

    url: str
    pollers: int
    stewards: Sequence[str]
    """Keys; clients take turns between both kinds."""
    analysts: Sequence[str]
    jobs: Sequence[str]
    body: Mapping[str, Any]
    """Of a job to create."""


@dataclass
class Answers:
    """What came of one round."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    """Of each kind of request, from its first byte to the answer's last."""
    failed: dict[str, int] = field(default_factory=dict)
    """Requests by kind and what they got in place of a 2xx."""
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        return sum(map(len, self.milliseconds.values()))


def run(crowd: Crowd, loads: Sequence[Load], done: "Synchronized[int]", out: "Connection[Answers, None]") -> None:
    """The process: sends one Answers for each load; `done` counts the requests that were answered."""
    asyncio.run(_run(crowd, loads, done, out))


async def _run(
    crowd: Crowd, loads: Sequence[Load], done: "Synchronized[int]", out: "Connection[Answers, None]"
) -> None:
    limits = httpx.Limits(max_connections=crowd.pollers, max_keepalive_connections=crowd.pollers)
    async with httpx.AsyncClient(base_url=crowd.url, limits=limits, timeout=120, trust_env=False) as client:
        for load in loads:
            answers, began = Answers(), time.perf_counter()
            ends = done.value + load.requests
            await asyncio.gather(
                *(_poll(client, crowd, number, load, answers, done, ends) for number in range(crowd.pollers))
            )
            answers.seconds = time.perf_counter() - began
            out.send(answers)


async def _poll(
    client: httpx.AsyncClient,
    crowd: Crowd,
    number: int,
    load: Load,
    answers: Answers,
    done: "Synchronized[int]",
    ends: int,
) -> None:
    """One client, as a steward's dashboard or an analyst's script; only the latter creates."""
    keys = crowd.analysts if number % 2 else crowd.stewards
    headers = {"authorization": f"Bearer {keys[number // 2 % len(keys)]}"}
    kinds, weights = list(MIX), list(MIX.values())

    async def ask(kind: str, method: str, path: str, **more: Any) -> dict[str, Any] | None:
        began = time.perf_counter()
        try:
            answer = await client.request(method, path, headers=headers, **more)
            outcome = None if answer.is_success else str(answer.status_code)
        except httpx.TransportError as error:
            outcome = type(error).__name__
        answers.milliseconds.setdefault(kind, []).append((time.perf_counter() - began) * 1e3)
        done.value += 1
        if outcome is None:
            made: dict[str, Any] = answer.json()
            return made
        answers.failed[f"{kind} {outcome}"] = answers.failed.get(f"{kind} {outcome}", 0) + 1
        return None

    await asyncio.sleep(random.uniform(0, load.pause))
    while done.value < ends:
        (kind,) = random.choices(kinds, weights) if number % 2 else random.choices(kinds[:3], weights[:3])
        job = f"{JOBS}/{random.choice(crowd.jobs)}"
        if kind == "get":
            await ask(kind, "GET", job)
        elif kind == "events":
            await ask(kind, "GET", f"{job}/events")
        elif kind == "list":
            await ask(kind, "GET", JOBS)
        elif kind == "estimate":
            await ask(kind, "POST", f"{JOBS}/estimate", json=crowd.body)
        else:
            made = await ask(kind, "POST", JOBS, json=crowd.body)
            if made is not None:
                await ask("cancel", "POST", f"{JOBS}/{made['id']}/cancel")
        if load.pause:
            await asyncio.sleep(random.uniform(0, 2 * load.pause))
