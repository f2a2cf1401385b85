"""A look at the workers that fails as an answer."""

import logging

from domain.jobs.hints import HINT_ERRORS
from domain.jobs.workers import LiveWorker, live

logger = logging.getLogger(__name__)


def answering(broker_url: str) -> list[LiveWorker] | None:
    """The workers that answer; None while the broker does not."""
    try:
        return live(broker_url)
    except HINT_ERRORS as error:
        logger.warning("no worker was asked: the broker is away: %s", type(error).__name__)
        return None
