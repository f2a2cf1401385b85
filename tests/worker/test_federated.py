"""Federated jobs, attempted in this process: rounds, what is paid for them, and what happens when somebody is away."""

import pytest

from domain.kit.settings import WorkerSettings
from tests.worker.federation import ROUNDS, Federation
from tests.worker.service import Service
from worker.federated import waiting


@pytest.fixture(autouse=True)
def nobody_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits lets go at once: the test gives the turns."""
    monkeypatch.setattr(waiting, "LINGER", -1.0)


@pytest.fixture
def federation(service: Service, settings: WorkerSettings) -> Federation:
    return Federation(service, settings)


def test_three_silos_of_two_tenants_train_one_adapter(federation: Federation) -> None:
    """All rounds, each with all messages; every silo is settled with just its own steps, and an adapter is released."""
    job_id = federation.submit()
    silos = federation.silos(job_id)
    assert list(silos) == ["silo-1", "silo-2", "silo-3"]
    assert federation.run(job_id) == "succeeded"
    story = federation.story(job_id)
    assert [(r["number"], r["came"]) for r in story] == [(n, list(silos)) for n in range(ROUNDS)]
    for silo in silos.values():
        assert federation.status(silo) == "succeeded"
        assert federation.authorised(silo) == ROUNDS
        assert [part["number"] for part in federation.parts(silo)] == list(range(ROUNDS))
    assert all(not any(reserved) for _, reserved in federation.balances().values())
