"""Spans kept in memory instead of being sent."""

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

COLLECTOR = "http://127.0.0.1:9"
"""Nobody answers there."""
MINUTE = 60 * 10**9


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What would have gone to the collector."""
    memory = InMemorySpanExporter()
    place = "opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter"
    monkeypatch.setattr(place, lambda endpoint: memory)
    return memory


def require_bare(spans: tuple[ReadableSpan, ...], *private: str) -> None:
    """Spans say nothing beside their name, their times and their attributes, and none of the private words."""
    assert spans
    for span in spans:
        assert (*span.events, *span.links) == ()
        assert span.status.description is None
        assert not span.context.trace_state  # type: ignore[union-attr]
        assert span.resource.attributes.keys() == {"service.name", "service.version"}
        for word in private:
            assert word not in span.to_json()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
