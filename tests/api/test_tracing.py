"""What a trace of a request says, and what it never does."""

import dataclasses
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from api.app import create_app
from tests.api.conftest import JOBS, World
from tests.spans import COLLECTOR, attributes, require_bare, sent

SECRET = "canaryofarow"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_A_CALLER = {
    "traceparent": f"00-{TRACE}-{PARENT}-01",
    "tracestate": f"vendor={SECRET}",
    "baggage": f"note={SECRET}",
    "user-agent": SECRET,
    "host": f"{SECRET}.example",
}
BASIS = {"http.request.method", "http.route", "http.response.status_code", "tacit.request.id"}
__all__ = ["sent"]


@pytest.fixture
def everybodys(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What libraries would send where somebody else has set up a tracer for the whole process."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    return memory


def test_a_span_a_request_names_the_route_and_nothing_that_was_sent(
    world: World,
    sent: InMemorySpanExporter,
    everybodys: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("api.keys.endpoints.fetch", broken)
    training_file = world.private_file()["id"]
    app = create_app(world.settings.model_copy(update={"otlp_endpoint": COLLECTOR}))
    with TestClient(app, raise_server_exceptions=False, headers=FROM_A_CALLER) as client:
        here = dataclasses.replace(world, client=client)
        job = here.submit(training_file, metadata={"note": SECRET})
        asked = here.post(f"{JOBS}/{SECRET}/cancel", {"note": SECRET}, params={"after": SECRET})
        rows = f"text,{SECRET}\nx,{SECRET}\n".encode()
        refused = here.upload(rows, name=f"{SECRET}.csv")
        failed = here.get("/v1/keys", "admin")
        here.get(f"/nowhere/{SECRET}")
        here.get(f"/dashboard/jobs/{SECRET}", headers={"traceparent": SECRET}, follow_redirects=False)
    assert (asked.status_code, refused.status_code, failed.status_code) == (404, 400, 500)

    spans = sent.get_finished_spans()
    require_bare(spans, SECRET, *world.keys["one"].values(), "127.0.0.1", "testclient")
    create, cancel, upload, crash, nowhere, page = spans
    assert [span.name for span in spans[:4]] == [
        f"POST {JOBS}",
        f"POST {JOBS}/{{job_id}}/cancel",
        "POST /v1/files",
        "GET /v1/keys",
    ]
    assert nowhere.name == "GET none"
    for span in (cancel, upload, nowhere, page):
        assert attributes(span).keys() == BASIS
        assert span.status.status_code == StatusCode.UNSET
    assert attributes(create).keys() == {*BASIS, "tacit.job.id"}
    assert attributes(create)["tacit.job.id"] == job["id"]
    assert attributes(crash).keys() == {*BASIS, "error.type"}
    assert attributes(crash)["error.type"] == "builtins.RuntimeError"
    assert crash.status.status_code == StatusCode.ERROR
    assert attributes(cancel)["tacit.request.id"] == asked.headers["x-request-id"]
    assert attributes(cancel)["http.response.status_code"] == 404
    assert upload.start_time == upload.end_time  # it follows from the number of rows

    assert {callers(span) for span in spans[:-1]} == {(int(TRACE, 16), int(PARENT, 16))}
    assert page.parent is None
    assert everybodys.get_finished_spans() == ()


def callers(span: ReadableSpan) -> tuple[Any, Any]:
    assert span.context is not None
    assert span.parent is not None
    return span.context.trace_id, span.parent.span_id
