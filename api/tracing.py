"""A span for each request: what its line in the log says, and the id of the job that it is about."""

import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from domain.kit.logs import type_name

MILLISECOND = 10**6  # in nanoseconds
SERVER_ERROR = 500


def record(
    tracer: Tracer, scope: Scope, facts: Mapping[str, str | int], status: int, error: BaseException | None
) -> None:
    """The span of a request that is over now. One that is not timed in the log has no length here either."""
    end = time.time_ns() // MILLISECOND * MILLISECOND
    span = tracer.start_span(
        f"{facts['method']} {facts['route']}",
        context=_of_caller(scope),
        kind=SpanKind.SERVER,
        start_time=end - int(facts.get("milliseconds", 0)) * MILLISECOND,
        attributes={
            "http.request.method": facts["method"],
            "http.route": facts["route"],
            "http.response.status_code": status,
            "tacit.request.id": scope["request_id"],
        },
    )
    job_id = str(scope.get("audited", "")).partition("/")[0]
    if job_id.startswith("ftjob-"):
        span.set_attribute("tacit.job.id", job_id)
    if status >= SERVER_ERROR:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(status) if error is None else type_name(error))
    span.end(end)


def _of_caller(scope: Scope) -> Context:
    """The caller's trace where it names one. Its tracestate and baggage, which are free text, are not read."""
    parent = Headers(scope=scope).get("traceparent", "")
    return TraceContextTextMapPropagator().extract({"traceparent": parent}, Context())
