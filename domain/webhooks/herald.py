"""Tells webhooks, on a thread of the API's process: any number of processes may, and nothing waits for it."""

import asyncio
import logging
import ssl
import threading
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from domain.kit.logs import describe
from domain.kit.settings import ApiSettings, secret_bytes
from domain.webhooks.events import body_of
from domain.webhooks.hosts import NotAllowed, require_allowed
from domain.webhooks.outbox import Outbox
from domain.webhooks.sending import clock, send
from domain.webhooks.signing import headers, secret_of

TURN = 5.0
"""Seconds between two looks, when nothing waits to be sent."""
PARTING = 15.0
"""Seconds that an attempt under way has to end."""
DEAD = "the key that made this webhook is revoked or has expired: make it anew with a living key"
logger = logging.getLogger(__name__)


class Herald:
    """Looks for what is to be told, and tells it."""

    def __init__(self, outbox: Outbox, settings: ApiSettings) -> None:
        self._outbox, self._hosts = outbox, settings.webhook_hosts
        self._pepper = secret_bytes(settings.key_pepper)
        self._tls = ssl.create_default_context()
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every address
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="herald", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is under way ends; the rest is told by the next process."""
        self._end.set()
        self._thread.join(PARTING)

    def _run(self) -> None:
        while not self._end.wait(TURN):
            try:
                self._outbox.look()
                while self.turn() and not self._end.is_set():
                    pass
            except Exception as error:  # noqa: BLE001  whatever it is, the next turn must come
                logger.warning("webhooks were not told: %s", describe(error))

    def turn(self) -> int:
        """Send what is due now; answers how many attempts that were."""
        due = self._outbox.claim()
        if not due:
            return 0
        hooks = self._outbox.hooks_of(due)
        for delivery, trouble in zip(due, asyncio.run(self._send_all(due, hooks)), strict=True):
            self._outbox.settle(delivery, trouble)
            if trouble is not None:
                logger.warning("webhook %s was not told: %s", delivery.webhook_id, trouble)
        return len(due)

    async def _send_all(self, due: Sequence[sa.Row[Any]], hooks: dict[str, sa.Row[Any]]) -> list[str | None]:
        return await asyncio.gather(*(self._send(delivery, hooks.get(delivery.webhook_id)) for delivery in due))

    async def _send(self, delivery: sa.Row[Any], hook: sa.Row[Any] | None) -> str | None:
        if hook is None:  # it was removed meanwhile
            return None
        if not delivery.alive:
            return DEAD
        try:
            url = require_allowed(hook.url, self._hosts)
        except NotAllowed as error:
            return str(error)
        body = body_of(delivery)
        return await send(self._tls, url, headers(secret_of(hook, self._pepper), delivery.id, clock(), body), body)
