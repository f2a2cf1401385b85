"""Two tenants, three silos: a worker process each, with a folder, a master key, a queue and a login of its own, and a
coordinator that has none of them."""

import contextlib

import pytest
import sqlalchemy as sa

from domain.files.binding import open_file
from domain.kit.tables import file
from domain.storage.blobs import NotMounted, open_store
from domain.storage.masters import NoMasterKey
from ledger.tables import work
from tests.silos import KEYS, Installation
from tests.worker import tiny
from tests.worker.federation import ROUNDS, Federation
from tests.worker.service import PATIENCE, Service, until

SILOS = ("a", "b", "c")
LONG_ENOUGH = 2 * PATIENCE


@pytest.fixture
def house(service: Service) -> Installation:
    service.database.bind_silos()
    made = Installation(
        service.database, service.broker, service.folder, {"a": ["tenant_a"], "b": ["tenant_b"], "c": []}
    )
    service.store = open_store(made.api(), service.api)
    return made


@pytest.fixture
def federation(service: Service, house: Installation) -> Federation:
    made = Federation(service, house.worker(None, models={"tiny": service.model}, device="cpu"))
    homes = [f"silos/{name}/" for name in SILOS]
    made.own = made.add_file("tenant_a", seed=21, home=homes[0])
    made.files = [made.add_file("tenant_b", seed=22 + place, home=home) for place, home in enumerate(homes[1:])]
    service.eval_file = service.add_file(*tiny.rows(100, seed=30), private=False, home="exchange/")
    return made


@pytest.mark.verify  # in one process they train in test_federated.py; whose worker runs what is in test_silos.py
def test_three_workers_that_open_nothing_of_one_another_train_one_adapter(
    service: Service, house: Installation, federation: Federation
) -> None:
    job_id = federation.submit()
    silos = federation.silos(job_id)
    places = {row.job_id: row.silo for row in service.all(sa.select(work.c.job_id, work.c.silo))}
    assert [places[silos[f"silo-{n}"]] for n in (1, 2, 3)] == list(SILOS)
    assert places[job_id] is None
    with contextlib.ExitStack() as workers:
        for silo in (None, *SILOS):
            workers.enter_context(service.worker(lease_seconds=30, **house.environment(silo)))
        until(lambda: not service.open(job_id), LONG_ENOUGH, lambda: f"{federation.story(job_id)}")
        assert service.status(job_id) == "succeeded"
        until(lambda: not any(map(service.open, silos.values())), PATIENCE, lambda: "a silo has not ended")
    assert [r["came"] for r in federation.story(job_id)] == [list(silos)] * ROUNDS
    assert {service.status(silo) for silo in silos.values()} == {"succeeded"}
    assert all(row.blob.startswith(f"jobs/{job_id}/results/") for row in service.released(job_id).values())
    owners = {row.owner for row in service.all(sa.select(work.c.owner).where(work.c.owner.is_not(None)))}
    assert len(owners) >= 4, "a process each"


def test_no_silos_worker_and_no_coordinator_opens_what_is_not_its_own(
    service: Service, house: Installation, federation: Federation
) -> None:
    """By its rights: the place, the key, the name. With the other one's folder in its hands it has no key to it."""
    files = dict(zip(SILOS, [federation.own, *federation.files], strict=True))
    rows = {silo: service.one(sa.select(file).where(file.c.id == id)) for silo, id in files.items()}
    for worker in (None, *SILOS):
        for silo, row in rows.items():
            own = house.worker(worker)
            engine = sa.create_engine(own.database_url.get_secret_value(), poolclass=sa.NullPool)
            with engine.connect() as connection:
                if worker == silo:
                    assert open_file(connection, open_store(own, engine), row).whole()
                    continue
                with pytest.raises(NotMounted):
                    open_file(connection, open_store(own, engine), row)
            # It says that it is the other one's, and has that one's folder too: what it lacks is the key.
            posing = house.worker(silo, master_key=KEYS[worker or "general"], database_url=own.database_url)
            with pytest.raises(NoMasterKey):
                open_store(posing, engine)
