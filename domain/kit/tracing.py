"""Spans for the operator, sent to an OpenTelemetry collector where one is named; otherwise no tracer is even imported.

They obey the rule of logs: a span has only what the code here sets by name, an exception is told by its type, and in a
worker times are whole minutes. So the provider is never made the global one, and no span is ever the current one:
libraries that trace by themselves would add paths, queries and the words of errors.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

LAST_WORDS = 2.0
"""Seconds that the end of a process waits for a collector; what is not sent by then is dropped."""


@contextmanager
def exporting(endpoint: str | None, service: str, *, every: float = 5.0) -> "Iterator[Tracer | None]":
    """A tracer whose spans are sent in batches by a thread, every so many seconds; None without an endpoint.

    A collector that is slow or away costs dropped spans and a line in the log.
    """
    if endpoint is None:
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = Resource({"service.name": service, "service.version": version("tacit")})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000 * every))
    try:
        yield provider.get_tracer("tacit")
    finally:
        # The SDK's own bound is 30 seconds.
        last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(LAST_WORDS)
