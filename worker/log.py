"""The worker's log: for the operator. It names jobs, types of errors and places in the code, never what is in a row."""

import logging
from typing import Any

from celery.signals import setup_logging
from celery.utils.log import get_multiprocessing_logger

from domain.kit import logs

log = logging.getLogger("tacit.worker")


@setup_logging.connect
def set_up(**_: Any) -> None:
    """In place of Celery's own, in the worker and in each of its pool's processes."""
    logs.set_up(to_the_minute=True)
    of_pool = get_multiprocessing_logger()  # has a plain handler of its own in a fresh process
    of_pool.handlers.clear()
    of_pool.propagate = True
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)  # it tells how long a task took
