"""A process that makes one attempt at a job, as a worker does, and kills itself at a moment that it is told.

`tests.worker.forked` runs `main` with a worker's environment and DYING, a JSON object. job: the id. secret: of all draws
and noises, so that two runs can be compared. at: "module:name", n and before or after: the n-th call of that function,
where SIGKILL comes; null where it lives. grants: how many steps of each phase are granted at most; null for all.
"""

import json
import os
import signal
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from typing import Any


def main() -> int:
    """0 where it lived."""
    import dpcore.run
    from domain.kit.database import make_engine
    from domain.kit.settings import WorkerSettings, from_environment
    from dpcore.mechanism.keystream import Streams
    from worker.attempt import attempt
    from worker.log import set_up

    set_up()
    told = json.loads(os.environ["DYING"])
    setattr(dpcore.run, "Streams", partial(Streams, test_secret=told["secret"].encode()))  # noqa: B010
    if told["grants"] is not None:
        _grant(told["grants"])
    if told["at"] is not None:
        _die(*told["at"])
    settings = from_environment(WorkerSettings)
    attempt(make_engine(settings.database_url.get_secret_value(), pool_size=2), settings, told["job"])
    return 0


def _instead(place: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put something in the place of a function or method."""
    module, name = place.split(":")
    *holders, last = name.split(".")
    holder: Any = import_module(module)
    for of in holders:
        holder = getattr(holder, of)
    setattr(holder, last, make(getattr(holder, last)))


def _die(place: str, call: int, when: str) -> None:
    def make(real: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        @wraps(real)
        def dying(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            made = real(*arguments, **more)
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return made

        return dying

    _instead(place, make)


def _grant(most: list[int]) -> None:
    """As if a reservation were used up after so many steps of a phase."""
    left = [*most]

    def make(real: Callable[..., Any]) -> Callable[..., Any]:
        def authorise(self: Any, program: Any, phase: int, steps: int) -> int:
            granted: int = real(self, program, phase, min(steps, left[phase])) if left[phase] else 0
            left[phase] -= granted
            return granted

        return authorise

    _instead("worker.training:Training._authorise", make)
