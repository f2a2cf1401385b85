"""Federated jobs with real workers."""

import pytest
import redis

from domain.jobs.hints import redis_url
from domain.kit.settings import WorkerSettings
from tests.worker.books import wrong
from tests.worker.federation import Federation
from tests.worker.service import PATIENCE, Service, until


@pytest.mark.verify
def test_one_worker_brings_a_job_of_three_silos_to_its_end_though_the_broker_is_emptied(
    service: Service, settings: WorkerSettings
) -> None:
    """Whoever waits for others lets them have the worker, and hints that are lost are sent again."""
    federation = Federation(service, settings)
    job_id = federation.submit(round_seconds=0.1)
    silos = federation.silos(job_id)
    url = redis_url(service.broker)
    assert url is not None

    def rounds_closed() -> int:
        return sum(each["came"] is not None for each in federation.story(job_id))

    with service.worker(lease_seconds=4):
        until(lambda: rounds_closed() == 1, PATIENCE, lambda: f"no round closed: {federation.story(job_id)}")
        redis.Redis.from_url(url).flushdb()
        service.wait(job_id, "succeeded")
        over = ("succeeded", "cancelled", "failed")
        until(lambda: all(federation.status(each) in over for each in silos.values()), PATIENCE, lambda: "silos hang")
    assert [each["came"] for each in federation.story(job_id)] == [list(silos)] * 2
    assert {federation.status(each) for each in silos.values()} == {"succeeded"}
    assert [wrong(service, each) for each in silos.values()] == [[], [], []]
