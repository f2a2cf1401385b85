"""What the service does for everybody, again and again or at its start: one odd row must not end it.

Each duty runs in a transaction that is rolled back, so that it may do to the stage whatever it wants.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import sqlalchemy as sa
from obstore.store import LocalStore
from pydantic import SecretStr

import worker.reconciler
from domain.files.files import encrypt_old
from domain.jobs.expiry import end_expired
from domain.keeping.retention import forget_old
from domain.kit.settings import KeySettings
from domain.storage.blobs import Store
from domain.storage.masters import read_masters
from domain.storage.vault import Vault
from domain.webhooks.events import body_of
from domain.webhooks.outbox import Outbox
from domain.webhooks.signing import headers, secret_of
from ledger.chains import KnownHeads, freezes, take_stock
from tests.conftest import MASTER_KEY, Database

_SETTINGS: Any = SimpleNamespace(
    lease_seconds=60, max_attempts=20, reconcile_seconds=5, broker_url=SecretStr("redis://nowhere"), silo=None
)


class Rehearsal:
    """In the place of an engine: transactions within one that never commits."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        with self._connection.begin_nested():
            yield self._connection

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        yield self._connection


class Duties:
    """The duties of both services, at a folder for blobs that holds nothing."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._api = sa.create_engine(database.api_url).connect()
        self._worker = sa.create_engine(database.worker_url).connect()
        self._folder = folder

    def close(self) -> None:
        for connection in (self._api, self._worker):
            connection.close()
            connection.engine.dispose()

    def failing(self) -> list[str]:
        """Which of them cannot be done."""
        found = []
        for name, connection, duty in (
            ("reconcile", self._worker, self._reconcile),
            ("encrypt_old", self._worker, lambda engine: encrypt_old(engine, self._store(engine))),
            ("end_expired", self._api, end_expired),
            ("forget_old", self._api, lambda engine: forget_old(engine, 30)),
            ("take_stock", self._api, self._take_stock),
            ("tell", self._api, self._tell),
        ):
            if error := self._error_of(connection, duty):
                found.append(f"{name} cannot be done any more: {error}")
        return found

    @staticmethod
    def _error_of(connection: sa.Connection, duty: Callable[[Any], object]) -> str | None:
        whole = connection.begin()
        try:
            duty(Rehearsal(connection))
        except Exception as error:  # noqa: BLE001  whatever a stored value does to it
            return f"{type(error).__name__}: {str(error)[:200]!r}"
        finally:
            whole.rollback()
        return None

    def _reconcile(self, engine: Any) -> None:
        with ExitStack() as stack:
            for name, stand_in in (("send_hint", lambda *_: None), ("waiting", lambda *_: 0)):
                stack.enter_context(mock.patch.object(worker.reconciler, name, stand_in))
            worker.reconciler.reconcile(engine, self._store(engine), _SETTINGS)

    @staticmethod
    def _take_stock(engine: Rehearsal) -> None:
        with engine.connect() as connection:
            take_stock(connection, KnownHeads())
            freezes(connection)

    @staticmethod
    def _tell(engine: Any) -> None:
        outbox = Outbox(engine)
        outbox.look()
        due = outbox.claim()
        known = outbox.hooks_of(due)
        for delivery in due:
            headers(secret_of(known[delivery.webhook_id], b"pepper"), delivery.id, 0, body_of(delivery))
            outbox.settle(delivery, "it answered 500")

    def _store(self, engine: Any) -> Store:
        vault = Vault(engine, read_masters(KeySettings(master_key=SecretStr(MASTER_KEY))))
        return Store(LocalStore(self._folder), self._folder, vault)
