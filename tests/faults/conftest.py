"""Servers that faults may end, empty and restart; a service in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.faults.stack import Servers
from tests.worker.conftest import service, tiny_model

__all__ = ["service", "tiny_model"]  # fixtures


@pytest.fixture(scope="module")
def servers(short_folder: Path) -> Iterator[Servers]:
    made = Servers(short_folder / "faults")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def own_databases(servers: Servers) -> Databases:
    return Databases(servers.postgres)
