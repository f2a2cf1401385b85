"""Waiting for others without keeping a worker from its other jobs."""

import time
from collections.abc import Callable
from typing import TypeVar

from domain.jobs.hints import HINT_ERRORS, send_hint, waiting
from domain.kit.settings import WorkerSettings
from worker.log import log

T = TypeVar("T")

POLL = 0.25
"""Seconds between two looks."""
LINGER = 120.0
"""Seconds after which a process that waits is given back: a hint starts another one when there is something to do."""
_QUEUE_POLL = 2.0


def wait_for(settings: WorkerSettings, look: Callable[[], T | None], wanted: Callable[[], None]) -> T | None:
    """What `look` answers, as soon as it is something; None when other jobs wait for this worker, or nobody came for
    long. wanted: raises when there is no point in waiting any more."""
    began = asked = time.monotonic()
    while True:
        wanted()
        if (found := look()) is not None:
            return found
        now = time.monotonic()
        if now - began > LINGER:
            return None
        if now - asked > _QUEUE_POLL:
            asked = now
            if _others_wait(settings):
                return None
        time.sleep(POLL)


def _others_wait(settings: WorkerSettings) -> bool:
    try:
        return waiting(settings.broker_url.get_secret_value(), settings.silo) > 0
    except HINT_ERRORS as error:
        log.warning("the broker is away: %s", type(error).__name__)
        return False


def hint(settings: WorkerSettings, job_id: str, silo: str | None = None) -> None:
    """Tell the workers of a job, of this silo or of none, that there is something to do; the reconciler does it where
    this is lost."""
    try:
        send_hint(settings.broker_url.get_secret_value(), job_id, silo)
    except HINT_ERRORS as error:
        log.warning("the broker is away: %s", type(error).__name__)
