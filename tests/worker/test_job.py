"""Jobs through a real worker process."""

import hashlib
import io
import json
import zipfile
from importlib.metadata import version

import sqlalchemy as sa
from safetensors.torch import load

from domain.jobs.events import append_event
from domain.kit.tables import checkpoint, job, job_event
from domain.storage.blobs import get_bytes
from dpcore.terms import odds
from dpcore.terms.accounting import Part
from ledger.tables import work
from ledger.work import request_stop
from tests.worker import tiny
from tests.worker.service import PATIENCE, Service, until


def adapter_moved(service: Service, id: str) -> bool:
    """Whether the released adapter differs from the base model: lora_B starts at zero."""
    blob = get_bytes(service.store, service.released(id)["adapter"].blob)
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(archive.namelist())
        weights = load(archive.read("adapter_model.safetensors"))
    moved = [bool(w.abs().max() > 0) for name, w in weights.items() if "lora_B" in name]
    return bool(moved) and all(moved)


APPROVAL = {"by": {"id": "key_b", "name": "Dr Wu"}, "reason": "as agreed"}
LONG = 4000  # steps: longer than any test waits


def test_a_job_goes_all_the_way(service: Service) -> None:
    # A lease that does not run out meanwhile: it is given back.
    with service.worker(lease_seconds=600, fresh=True):
        id = service.submit(steps=60, intended_use="a pilot")
        with service.api.begin() as c:
            append_event(c, id, "job.approved", "Approved by Dr Wu.", APPROVAL)
        service.wait(id, "succeeded")
        service.wait_tidied(id)
        over = sa.select(work.c.lease_until <= sa.func.clock_timestamp()).where(work.c.job_id == id)
        until(lambda: service.one(over)[0], 60, lambda: "the lease is still held")

    results = service.released(id)
    assert set(results) == {"adapter", "report"}
    data = {kind: get_bytes(service.store, r.blob) for kind, r in results.items()}
    for kind, r in results.items():
        assert (r.bytes, r.sha256) == (len(data[kind]), hashlib.sha256(data[kind]).hexdigest())
        assert r.purpose == "fine-tune-results"
    assert adapter_moved(service, id)

    paid, report = service.ledger(id), json.loads(data["report"])
    assert paid.steps_authorised == paid.steps_max == report["privacy"]["steps_authorised"] == 60
    assert service.settlement(id).spent_change == [60 * cost for cost in paid.step_cost]
    assert report["labels"] == list(tiny.LABELS)
    assert (report["intended_use"], report["approval"]) == ("a pilot", APPROVAL)
    assert 0 < report["privacy"]["epsilon_charged"] <= 100
    assert "differentially private" in report["privacy"]["guarantee"]
    made = report["adapter"]
    assert (made["sha256"], made["bytes"]) == (results["adapter"].sha256, results["adapter"].bytes)
    with zipfile.ZipFile(io.BytesIO(data["adapter"])) as archive:
        assert made["files"] == {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    (part,) = report["privacy"]["phases"]
    found = odds.of_job((Part(part["sample_rate"], 60, part["noise_multiplier"]),))
    assert report["odds_this_job_alone"]["found"] == [list(point) for point in odds.curve(found)]
    assert report["odds_this_job_alone"]["best_accuracy"] == found.best_accuracy()
    assert report["versions"]["dp-accounting"] == version("dp-accounting")
    measured = report["metrics"]["validation"]
    assert measured["evaluated"] == sum(one["records"] for one in measured["per_class"].values()) == 100

    row = service.one(sa.select(job).where(job.c.id == id))
    assert row.created_at <= row.started_at <= row.finished_at
    assert row.finished_at.second == 0 or row.finished_at == row.created_at
    events = service.all(sa.select(job_event).where(job_event.c.job_id == id).order_by(job_event.c.seq))
    assert [e.data["step"] for e in events if e.type == "metrics"] == list(range(3, 61, 3))
    assert all(e.created_at.second == 0 for e in events)
    assert events[-1].data["quality"]["value"] == measured["accuracy"]
    assert events[-1].data["quality"]["untrained"] == measured["untrained"]["accuracy"]


def test_a_running_job_is_cancelled_at_the_price_of_its_authorised_steps(service: Service) -> None:
    with service.worker():
        id = service.submit(steps=LONG)
        until(lambda: service.authorised(id) > 0, PATIENCE, lambda: "nothing was authorised")
        with service.api.begin() as c:
            request_stop(c, id)
        service.wait(id, "cancelled")
        service.wait_tidied(id)
    paid = service.ledger(id)
    assert 0 < paid.steps_authorised < LONG
    assert service.settlement(id).spent_change == [paid.steps_authorised * cost for cost in paid.step_cost]
    assert service.released(id) == {}


def test_a_worker_told_to_end_lets_go_and_the_next_one_goes_on(service: Service) -> None:
    with service.worker(lease_seconds=600) as first:
        id = service.submit(steps=400)
        until(lambda: service.authorised(id) > 50, PATIENCE, lambda: "nothing was authorised")
        first.terminate()
        assert first.process.returncode == 0
        assert service.status(id) == "running"
        kept = service.one(sa.select(sa.func.max(checkpoint.c.step)).where(checkpoint.c.job_id == id))[0]
        assert kept >= 40
    # The lease of ten minutes was given back, so the next worker need not wait for it.
    with service.worker(lease_seconds=600) as second:
        service.wait(id, "succeeded")
        assert f"goes on from step {kept} under fence 2" in second.log.read_text()
    paid = service.ledger(id)
    assert paid.steps_authorised <= paid.steps_max == 400
    assert service.settlement(id).spent_change == [paid.steps_authorised * cost for cost in paid.step_cost]
