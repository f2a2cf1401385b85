import pytest

from tests.conftest import Database
from tests.ledger.worlds import World


@pytest.fixture(scope="module")
def world(module_database: Database) -> World:
    return World(module_database)
