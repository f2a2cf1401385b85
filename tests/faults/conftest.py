"""Servers that faults may end, empty and restart; one tiny base model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.faults.stack import Servers
from tests.worker import tiny


@pytest.fixture(scope="module")
def servers(short_folder: Path) -> Iterator[Servers]:
    made = Servers(short_folder / "faults")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def own_databases(servers: Servers) -> Databases:
    return Databases(servers.postgres)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_model(folder)
    return folder
