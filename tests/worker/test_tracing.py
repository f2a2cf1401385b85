"""What a trace of an attempt says, and what it never does."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from domain.kit.settings import WorkerSettings
from domain.kit.tracing import exporting
from dpcore.run import Outcome
from ledger.work import request_stop
from tests.spans import COLLECTOR, MINUTE, attributes, require_bare, sent
from tests.worker import tiny
from tests.worker.service import Service
from worker import training as module
from worker.attempt import attempt

SECRET = "canary of a row"
STEPS = 40
__all__ = ["sent"]


def traced(engine: sa.Engine, settings: WorkerSettings, *jobs: str) -> None:
    with exporting(COLLECTOR, "tacit-worker") as tracer:
        for id in jobs:
            attempt(engine, settings, id, tracer)


def test_an_attempt_is_its_phases_in_whole_minutes(
    service: Service, engine: sa.Engine, settings: WorkerSettings, sent: InMemorySpanExporter
) -> None:
    id = service.submit(steps=STEPS, hint=False)
    traced(engine, settings, id)
    assert service.status(id) == "succeeded"
    spans = sent.get_finished_spans()
    *phases, whole = spans
    *before, last = [span.name for span in phases]
    assert before[:3] == ["build", "encode", "rehearse"]
    assert 1 <= len(before[3:]) <= 20
    assert set(before[3:]) == {"train"}
    assert (last, whole.name) == ("publish", "attempt")
    require_bare(spans, *tiny.LABELS)
    for span in spans:
        assert attributes(span) == {"tacit.job.id": id, "tacit.attempt": 1, "tacit.outcome": "finished"}
        assert span.start_time % MINUTE == span.end_time % MINUTE == 0  # type: ignore[operator]
        assert span.status.status_code == StatusCode.UNSET
    assert whole.parent is None
    assert all(span.parent == whole.context for span in phases)


def test_a_failure_of_the_data_phase_is_a_code(
    service: Service,
    engine: sa.Engine,
    settings: WorkerSettings,
    sent: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(*, authorise: Callable[[int, int], int], **_: Any) -> Outcome:
        authorise(0, 2)
        raise RuntimeError(SECRET) from ValueError(SECRET)

    unreadable = service.add_file([SECRET, "iron"], [len(tiny.LABELS), 1], private=True)
    monkeypatch.setattr(module, "run", train)
    traced(engine, settings, service.submit(train_file=unreadable, hint=False), service.submit(hint=False))
    spans = sent.get_finished_spans()
    require_bare(spans, SECRET, "RuntimeError", "ValueError", "DataPhaseFailed")
    failed = [span.name for span in spans if attributes(span)["tacit.outcome"] == "training_failed"]
    assert failed == ["encode", "attempt", "train", "attempt"]
    assert failed == [span.name for span in spans if span.status.status_code == StatusCode.ERROR]


def test_being_told_to_stop_is_no_failure(
    service: Service, engine: sa.Engine, settings: WorkerSettings, sent: InMemorySpanExporter
) -> None:
    id = service.submit(hint=False)
    with service.api.begin() as c:
        request_stop(c, id)
    traced(engine, settings, id)
    assert service.status(id) == "cancelled"
    spans = sent.get_finished_spans()
    assert attributes(spans[-1])["tacit.outcome"] == "ledger.errors.StopRequested"
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
