"""Real servers for the tests: one Postgres and one Redis a session, and a fresh migrated database for each test."""

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import hypothesis
import psycopg
import pytest
import sqlalchemy as sa

from cli.embedded import postgres, redis
from cli.embedded.errors import StackError
from domain.kit.settings import ServiceSettings
from domain.storage.blobs import Store, open_store
from migrations.roles import Login, Logins, statements

LOGINS = Logins(
    Login("tacit_admin", "admin-password"),
    Login("tacit_api_login", "api-password"),
    Login("tacit_worker_login", "worker-password"),
    silos=(
        Login("tacit_silo_a", "silo-a-password"),
        Login("tacit_silo_b", "silo-b-password"),
        Login("tacit_silo_c", "silo-c-password"),
    ),
)
SUPERUSER_PASSWORD = "superuser-password"
hypothesis.settings.register_profile("untimed", deadline=None)  # a deadline is an assertion on time
hypothesis.settings.load_profile("untimed")

# Before torch is imported: with as many processes as cores, its further threads only wait in circles for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MASTER_KEY = "5a" * 32
"""What wraps the keys of every test's blobs."""
LONG_FIRST = ("e2e", "deploy", "faults", "worker", "cli", "ledger", "benchmarks", "dashboard")
"""Folders whose files begin first, so that none of them is left to run alone at the end."""
ROOM = 4 << 30
"""Bytes that the databases of a process of tests may want at most, by far."""
T = TypeVar("T")


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For whoever shares files out among processes; and of a matrix that is sampled, the rest is for `make verify`."""
    matrices: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            matrices.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in matrices.values():
        (count,) = next(mark.args for mark in cases[0].iter_markers("sampled"))
        ranked = sorted(cases, key=lambda item: hashlib.sha256(item.nodeid.encode()).digest())
        for item in ranked[count:]:
            item.add_marker("verify")
    place = {folder: number for number, folder in enumerate(LONG_FIRST)}
    tests = Path(__file__).parent
    items.sort(key=lambda item: place.get(item.path.relative_to(tests).parts[0], len(place)))


def blob_store(folder: Path, engine: sa.Engine) -> Store:
    """A store of encrypted blobs in a folder, its keys behind MASTER_KEY."""
    settings = {"database_url": "", "broker_url": "", "blobs": str(folder), "master_key": MASTER_KEY}
    return open_store(ServiceSettings(**settings), engine)


@dataclass(frozen=True)
class Database:
    """One migrated database and its logins, as SQLAlchemy URLs."""

    name: str
    superuser_url: str
    """Of the server's superuser: for what no login of an installation can do."""
    admin_url: str
    api_url: str
    worker_url: str
    silo_urls: Mapping[str, str] = field(default_factory=dict)
    """Of the logins for the workers of silos a, b and c, which are bound by `bind_silos`."""

    def bind_silos(self) -> None:
        from migrations.silos import bind

        bind(self.admin_url, {login.name[-1]: login.name for login in LOGINS.silos}, LOGINS.worker.name)


def database_on(server: postgres.Postgres, name: str) -> Database:
    """The URLs of a database on a server with the tests' passwords."""
    urls = [server.url(login.name, login.password, name) for login in (LOGINS.admin, LOGINS.api, LOGINS.worker)]
    silos = {login.name[-1]: server.url(login.name, login.password, name) for login in LOGINS.silos}
    return Database(name, server.url(postgres.SUPERUSER, SUPERUSER_PASSWORD, name), *urls, silos)


def establish(superuser_url: str) -> None:
    """The roles of an installation, in a database that has none yet."""
    with psycopg.connect(superuser_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statements(LOGINS).encode())


class Databases:
    """Copies of a template that was migrated once: some 50 ms each."""

    def __init__(self, server: postgres.Postgres) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._template: str | None = None

    def empty(self) -> Database:
        """A new database with its roles that holds nothing."""
        made = self._create("")
        establish(made.superuser_url)
        return made

    def create(self) -> Database:
        if self._template is None:
            self._template = self._migrated()
        made = self._create(f"TEMPLATE {self._template} OWNER tacit_owner")
        # What a template does not pass on.
        self._run(f"REVOKE ALL ON DATABASE {made.name} FROM PUBLIC")
        self._run(f"GRANT CONNECT ON DATABASE {made.name} TO tacit_api, tacit_worker")
        return made

    def drop(self, name: str) -> None:
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _migrated(self) -> str:
        from migrations import upgrade

        made = self.empty()
        upgrade(made.admin_url)
        return made.name

    def _create(self, how: str) -> Database:
        name = f"test_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} {how}")
        return database_on(self._server, name)

    def _run(self, statement: str) -> None:
        url = database_on(self._server, "postgres").superuser_url.replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder that other users may pass, so that root can run Postgres as one of them."""
    folder = Path(tempfile.mkdtemp(prefix="tacit-test-", dir=_in_memory()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(short_folder: Path) -> Iterator[postgres.Postgres]:
    server = _started(
        lambda: postgres.start(
            short_folder / "postgres",
            password=SUPERUSER_PASSWORD,
            log=short_folder / "postgres.log",
            options=[
                *("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"),
                *("jit=off", "autovacuum=off"),  # of no use to databases that live for seconds
            ],
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
def empty_database(databases: Databases) -> Iterator[Database]:
    """A database that holds nothing but its roles, for the migrations themselves."""
    made = databases.empty()
    yield made
    databases.drop(made.name)


def _in_memory() -> Path | None:
    """Where files are memory, if there is room: a database is made of hundreds, and is gone after its test."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > ROOM
    return shared if roomy else None


def _started(start: Callable[[], T]) -> T:
    """A missing server program skips the tests that need it, unless everything is required."""
    try:
        return start()
    except StackError as error:
        if os.environ.get("TACIT_REQUIRE_ALL") == "1":
            raise
        pytest.skip(str(error))
