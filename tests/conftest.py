"""Real servers for the tests: one Postgres and one Redis a session, and a fresh migrated database for each test."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
import sqlalchemy as sa

from cli.embedded import postgres, redis
from cli.embedded.errors import StackError
from domain.blobs import Store, open_store
from domain.settings import ServiceSettings

PASSWORDS = {postgres.SUPERUSER: "admin-password", "tacit_api": "api-password", "tacit_worker": "worker-password"}
MASTER_KEY = "5a" * 32
"""What wraps the keys of every test's blobs."""
T = TypeVar("T")


def blob_store(folder: Path, engine: sa.Engine) -> Store:
    """A store of encrypted blobs in a folder, its keys behind MASTER_KEY."""
    settings = {"database_url": "", "broker_url": "", "blobs": str(folder), "master_key": MASTER_KEY}
    return open_store(ServiceSettings(**settings), engine)


@dataclass(frozen=True)
class Database:
    """One migrated database and its three logins, as SQLAlchemy URLs."""

    name: str
    admin_url: str
    api_url: str
    worker_url: str


class Databases:
    """Copies of a template that was migrated once: some 50 ms each."""

    def __init__(self, server: postgres.Postgres) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._template: str | None = None

    def url(self, user: str, name: str) -> str:
        return self._server.url(user, PASSWORDS[user], name)

    def empty(self) -> str:
        """The name of a new database that holds nothing."""
        return self._create("")

    def create(self) -> Database:
        if self._template is None:
            self._template = self._migrated()
        name = self._create(f"TEMPLATE {self._template}")
        urls = [self.url(user, name) for user in PASSWORDS]
        return Database(name, *urls)

    def drop(self, name: str) -> None:
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _migrated(self) -> str:
        from domain.bootstrap import set_service_passwords
        from migrations import upgrade

        name = self.empty()
        url = self.url(postgres.SUPERUSER, name)
        upgrade(url)
        set_service_passwords(url, PASSWORDS["tacit_api"], PASSWORDS["tacit_worker"])
        return name

    def _create(self, how: str) -> str:
        name = f"test_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} {how}")
        return name

    def _run(self, statement: str) -> None:
        url = self.url(postgres.SUPERUSER, "postgres").replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder that other users may pass, so that root can run Postgres as one of them."""
    folder = Path(tempfile.mkdtemp(prefix="tacit-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(short_folder: Path) -> Iterator[postgres.Postgres]:
    server = _started(
        lambda: postgres.start(
            short_folder / "postgres",
            password=PASSWORDS[postgres.SUPERUSER],
            log=short_folder / "postgres.log",
            options=["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"],
        )
    )
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(short_folder: Path) -> Iterator[str]:
    """The broker's URL in kombu's form."""
    server = _started(lambda: redis.start(short_folder / "redis", log=short_folder / "redis.log"))
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def databases(postgres_server: postgres.Postgres) -> Databases:
    return Databases(postgres_server)


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    """A migrated database for one test."""
    made = databases.create()
    yield made
    databases.drop(made.name)


@pytest.fixture(scope="module")
def module_database(databases: Databases) -> Iterator[Database]:
    """A migrated database shared by the tests of one file."""
    made = databases.create()
    yield made
    databases.drop(made.name)


@pytest.fixture
def empty_database(databases: Databases) -> Iterator[str]:
    """The administrator's URL of a database that holds nothing, for the migrations themselves."""
    name = databases.empty()
    yield databases.url(postgres.SUPERUSER, name)
    databases.drop(name)


def _started(start: Callable[[], T]) -> T:
    """A missing server program skips the tests that need it, unless everything is required."""
    try:
        return start()
    except StackError as error:
        if os.environ.get("TACIT_REQUIRE_ALL") == "1":
            raise
        pytest.skip(str(error))
