"""A service with its own database and queue for each test, and one tiny base model for all."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import sqlalchemy as sa

from domain.kit.settings import WorkerSettings
from dpcore.federated.server import State
from tests.conftest import MASTER_KEY, Database
from tests.worker import tiny
from tests.worker.federation import Federation, rehearse_once
from tests.worker.service import Service
from worker import lease
from worker.federated import waiting
from worker.federated.coordinator import Coordinator

_queues = itertools.count(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder)
    return folder


@pytest.fixture
def service(database: Database, redis_server: str, tmp_path: Path, tiny_model: Path) -> Iterator[Service]:
    # Redis has 16 databases: no test sees another's hints for as long as it matters.
    number = 1 + next(_queues) % 15
    broker = redis_server.replace("virtual_host=0", f"virtual_host={number}")
    with redis.Redis(unix_socket_path=urlsplit(broker).path, db=number) as queues:
        queues.flushdb()  # an earlier test's hints may still lie there
    made = Service(database, broker, tmp_path, tiny_model)
    yield made
    made.api.dispose()
    made.admin.dispose()


@pytest.fixture
def engine(service: Service) -> Iterator[sa.Engine]:
    """Pooled, as a worker's: an attempt opens some sixty transactions."""
    made = sa.create_engine(service.database.worker_url)
    yield made
    made.dispose()


@pytest.fixture
def settings(service: Service) -> WorkerSettings:
    return WorkerSettings(
        database_url=service.database.worker_url,
        broker_url=service.broker,
        blobs=str(service.folder / "blobs"),
        master_key=MASTER_KEY,
        models={"tiny": service.model},
        device="cpu",
    )


@pytest.fixture
def soon_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to stop is heard within half a second, by attempts of this process, under a lease that outlasts a busy
    machine."""
    monkeypatch.setattr(lease, "MOST_SECONDS_BETWEEN_BEATS", 0.5)


@pytest.fixture
def federation(service: Service, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    """Whoever waits lets go at once: the test gives the turns."""
    monkeypatch.setattr(waiting, "LINGER", -1.0)
    made = Federation(service, settings)
    yield made
    made.engine.dispose()


@pytest.fixture
def quick(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> Federation:
    """Silos are rehearsed once."""
    rehearse_once(monkeypatch)
    return federation


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Every state that the coordinator keeps."""
    kept: list[State] = []
    real = Coordinator._keep

    def keep(self: Coordinator, state: State) -> None:
        real(self, state)
        kept.append(state)

    monkeypatch.setattr(Coordinator, "_keep", keep)
    return kept
