"""Jobs on a silo's file, through real worker processes: the silo's own, and one that works for no silo."""

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.access.keys import key_seal, new_key
from domain.jobs.hints import send_hint, waiting
from domain.kit.settings import secret_bytes
from domain.kit.tables import api_key, checkpoint, job
from domain.storage.blobs import get_bytes, open_store
from ledger.tables import work
from tests.silos import Installation
from tests.worker import tiny
from tests.worker.service import DECLARED, PATIENCE, Service, until
from tests.worker.test_job import LONG, adapter_moved
from worker.reconciler import reconcile


@pytest.fixture
def house(service: Service) -> Installation:
    """The tenant of `service` has silo a: from now on the API's store is `service.store`, and its files lie there."""
    service.database.bind_silos()
    made = Installation(service.database, service.broker, service.folder, {"a": ["tenant_a"]})
    service.store = open_store(made.api(), service.api)
    return made


def of_silo(service: Service, **more: object) -> str:
    """A job on a file in silo a, with a public file that lies where both workers can read it."""
    training = service.add_file(*tiny.rows(DECLARED, seed=3), private=True, home="silos/a/")
    public = service.add_file(*tiny.rows(100, seed=4), private=False, home="exchange/")
    return service.submit(train_file=training, eval_file=public, **more)  # type: ignore[arg-type]


def download(service: Service, house: Installation, id: str) -> bytes:
    """The adapter, as its analyst gets it."""
    settings = house.api()
    material = new_key(secret_bytes(settings.key_pepper))
    values = {"id": material.id, "tenant_id": "tenant_a", "mac": material.mac, "scopes": ["steward", "analyst"]}
    seal = key_seal(values, secret_bytes(settings.key_pepper))
    with service.admin.begin() as c:
        c.execute(api_key.insert().values(**values, name="k", prefix=material.prefix, seal=seal))
    with TestClient(create_app(settings)) as client:
        answer = client.get(f"/v1/fine_tuning/jobs/{id}/adapter", headers={"Authorization": f"Bearer {material.text}"})
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_silos_job_is_run_by_its_worker_and_left_alone_by_others(service: Service, house: Installation) -> None:
    general = house.environment(None)
    with service.worker(**general):
        inside = of_silo(service, steps=20)
        outside = service.submit(steps=20, train_file=service.train_file)
        service.wait(outside, "succeeded")  # whoever looks for jobs has seen the other one too
        assert waiting(service.broker, "a") == 1
        send_hint(service.broker, inside)  # astray
        until(lambda: waiting(service.broker) == 0, PATIENCE, lambda: "the stray hint was not taken")
        assert service.ledger(inside).fence == 0
        assert service.status(inside) == "queued"
        with service.worker(**house.environment("a")):
            service.wait(inside, "succeeded")
            service.wait_tidied(inside)
    results = service.released(inside)
    assert all(row.blob.startswith(f"silos/a/jobs/{inside}/results/") for row in results.values())
    assert adapter_moved(service, inside)
    assert download(service, house, inside) == get_bytes(service.store, results["adapter"].blob)
    assert [path.relative_to(house.folder).parts[0] for path in house.folder.rglob(inside)] == ["a"]


@pytest.mark.verify  # a silo dies in test_federated_faults.py too
def test_a_killed_silos_worker_goes_on_from_its_own_checkpoint(service: Service, house: Installation) -> None:
    environment = house.environment("a")
    with service.worker(**environment):
        id = of_silo(service, steps=LONG)
        kept = sa.select(checkpoint.c.blob).where(checkpoint.c.job_id == id)
        until(lambda: bool(service.all(kept)), PATIENCE, lambda: "no checkpoint was kept")
    assert all(row.blob.startswith(f"silos/a/jobs/{id}/checkpoints/") for row in service.all(kept))
    with service.worker(**environment):
        until(lambda: service.ledger(id).fence > 1, PATIENCE, lambda: "nobody went on")
        before = service.authorised(id)
        until(lambda: service.authorised(id) > before, PATIENCE, lambda: "it does not go on")


def test_each_reconciler_brings_its_own_jobs_to_their_end(service: Service, house: Installation) -> None:
    inside, outside = of_silo(service, hint=False), service.submit(hint=False, train_file=service.train_file)
    with service.api.begin() as c:
        c.execute(sa.update(work).values(stop_requested=True))
    ended = sa.select(job.c.id).where(job.c.status == "cancelled")
    for silo, expected in ((None, {outside}), ("a", {inside, outside})):
        settings = house.worker(silo)
        engine = sa.create_engine(settings.database_url.get_secret_value(), poolclass=sa.NullPool)
        reconcile(engine, open_store(settings, engine), settings)
        engine.dispose()
        assert {row.id for row in service.all(ended)} == expected


@pytest.mark.parametrize("silo", ["a", None])
def test_a_worker_with_another_ones_login_does_not_start(
    service: Service, house: Installation, silo: str | None
) -> None:
    url = service.database.silo_urls["b"]
    worker = service.start_worker(lease_seconds=4, **house.environment(silo) | {"TACIT_DATABASE_URL": url})
    try:
        until(lambda: worker.process.poll() is not None, PATIENCE, lambda: "it started")
        assert "'tacit_silo_b' is bound to the silo b" in worker.log.read_text()
    finally:
        worker.kill()


def test_a_file_that_its_worker_cannot_open_ends_the_job_at_no_cost(service: Service, house: Installation) -> None:
    """A public file from before the tenant had its silo."""
    with service.worker(**house.environment("a")):
        training = service.add_file(*tiny.rows(DECLARED, seed=5), private=True, home="silos/a/")
        id = service.submit(train_file=training, eval_file=service.eval_file)
        service.wait(id, "failed")
    assert service.authorised(id) == 0
    (failed,) = service.all(sa.select(job.c.error).where(job.c.id == id))
    assert "uploaded for this silo" in str(failed.error)
