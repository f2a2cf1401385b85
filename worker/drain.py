"""A worker that is told to end: the running job stops at its next micro-batch, keeps a checkpoint and lets go."""

import os
import signal
import threading
from typing import Any

import billiard
from celery.worker import state

_draining = threading.Event()


def listen() -> None:
    """In a pool process that starts on a job: from now on SIGTERM only asks it to let go."""
    signal.signal(signal.SIGTERM, lambda *_: _draining.set())


def draining() -> bool:
    """Whether this process was asked to let go."""
    return _draining.is_set()


def pass_on(**_: Any) -> None:
    """In the worker itself: tell the pool processes; Celery's warm shutdown then waits for them."""
    if state.active_requests:  # an idle process ends by itself
        for child in billiard.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)
