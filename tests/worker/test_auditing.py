"""A job that asks for it is audited before its first row is read, once, for nothing; a worker that fails trains nothing."""

import json
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from domain.files.held_out import parted
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job, job_event
from domain.statements.models import StatedAudit
from domain.storage.blobs import get_bytes
from dpcore.audit.finding import AuditFinding
from dpcore.machine.micro_batches import Stopped
from ledger.work import request_stop
from tests.dpcore.audit import broken
from tests.worker.service import Service
from worker import auditing, training
from worker.attempt import attempt


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "CANARIES", 24)


def asked(service: Service, **more: object) -> str:
    return service.submit(steps=4, audit=True, hint=False, **more)  # type: ignore[arg-type]


def finding(service: Service, id: str) -> AuditFinding | None:
    with service.api.connect() as c:
        found = auditing.finding_of(c, id)
    return None if found is None else AuditFinding.read(found)


def test_the_audit_is_of_the_jobs_own_training_and_stands_in_its_report(
    service: Service, engine: sa.Engine, settings: WorkerSettings
) -> None:
    id = asked(service, method="bitfit", numbers={"clipping": "flat"})
    attempt(engine, settings, id)
    found = finding(service, id)
    assert found is not None
    assert (found.subject, found.asked, found.delta) == ("bitfit/classification/record/flat", 5.0, 1e-5)
    assert not found.above
    report = json.loads(get_bytes(service.store, service.released(id)["report"].blob))
    assert AuditFinding.read(report["audit"]) == found
    StatedAudit.model_validate({k: report["audit"].get(k) for k in StatedAudit.model_fields} | {"sentence": ""})


def test_a_worker_that_leaks_reads_no_row_and_charges_nothing(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "CANARIES", 120)

    def no_row(*_: object) -> None:
        raise AssertionError("a row was read")

    monkeypatch.setattr(training, "parted", no_row)
    id = asked(service)
    with broken.no_clipping():
        attempt(engine, settings, id)
    said = service.one(sa.select(job.c.status, job.c.error).where(job.c.id == id))
    assert (said.status, said.error["code"]) == ("failed", "audit_failed")
    assert "is claimed" in said.error["message"]
    assert service.authorised(id) == 0
    assert not any(service.settlement(id).spent_change)
    assert finding(service, id) is None


def test_a_later_attempt_does_not_audit_again(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise ConnectionError

    id = asked(service)
    with monkeypatch.context() as patch:
        patch.setattr(training, "parted", dies)
        with pytest.raises(ConnectionError):
            attempt(engine, settings, id)
    first = finding(service, id)
    assert first is not None
    monkeypatch.setattr(training, "parted", parted)
    monkeypatch.setattr(auditing, "find", dies)
    with service.admin.begin() as c:
        c.execute(sa.text("UPDATE ledger.work SET lease_until = now()"))
    attempt(engine, settings, id)
    assert service.one(sa.select(job.c.status).where(job.c.id == id)).status == "succeeded"
    assert finding(service, id) == first
    kept = sa.select(sa.func.count()).where(job_event.c.job_id == id, job_event.c.name == "audit.finished")
    assert service.one(kept)[0] == 1


def test_a_job_is_cancelled_while_it_is_audited(
    service: Service,
    engine: sa.Engine,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    soon_heard: None,
) -> None:
    id = asked(service)

    def cancelled(*_: object, should_stop: Callable[[], bool], **__: object) -> None:
        with service.api.begin() as c:
            request_stop(c, id)
        while not should_stop():
            pass
        raise Stopped

    monkeypatch.setattr(auditing, "find", cancelled)
    attempt(engine, settings, id)
    assert service.one(sa.select(job.c.status).where(job.c.id == id)).status == "cancelled"
    assert not any(service.settlement(id).spent_change)


def test_an_audit_that_cannot_be_made_ends_the_job_for_nothing_and_says_why(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(auditing, "find", fails)
    id = asked(service)
    attempt(engine, settings, id)
    said = service.one(sa.select(job.c.status, job.c.error).where(job.c.id == id))
    assert (said.status, said.error["code"]) == ("failed", "not_trainable")
    assert "no such kernel" in said.error["message"]
    assert not any(service.settlement(id).spent_change)
