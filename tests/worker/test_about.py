"""A worker says over the broker that it lives, whose jobs it takes and what it runs; never what it is at."""

from importlib.metadata import version

from domain.jobs import workers
from domain.jobs.hints import queue_of, silo_of_queue
from tests.worker.service import PATIENCE, Service, until


def test_a_worker_answers(service: Service) -> None:
    broker = service.broker
    assert workers.live(broker) == []
    with service.worker():
        until(lambda: len(workers.live(broker)) == 1, PATIENCE, lambda: "no worker answered")
        (one,) = workers.live(broker)
    assert (one.known, one.silo, one.versions["torch"]) == (True, None, version("torch"))
    assert one.versions.keys() == {"python", "tacit", "torch", "transformers", "peft"}


def test_a_queue_is_of_a_silo_or_of_everybody() -> None:
    assert [silo_of_queue(queue_of(silo)) for silo in (None, "north")] == [None, "north"]
