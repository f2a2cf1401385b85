"""A service with its own database and queue for each test, and one tiny base model for all."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.worker import tiny
from tests.worker.service import Service

_queues = itertools.count(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder)
    return folder


@pytest.fixture
def service(database: Database, redis_server: str, tmp_path: Path, tiny_model: Path) -> Iterator[Service]:
    # Redis has 16 databases: no test sees another's hints for as long as it matters.
    broker = redis_server.replace("virtual_host=0", f"virtual_host={1 + next(_queues) % 15}")
    made = Service(database, broker, tmp_path, tiny_model)
    yield made
    made.api.dispose()
    made.admin.dispose()
