"""What the operator sees of requests: a line in the log for each, and counters. Never a path, a body or who asked."""

import contextlib
import logging
import time
from collections.abc import Iterator

import sqlalchemy as sa
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.deps import Resources
from api.health.checks import look, places
from api.middleware import UPLOADS
from domain.kit import disk
from domain.kit.logs import about
from domain.kit.metrics import OncePerMinute, serve
from domain.kit.tables import job
from ledger.tables import budget

METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}
_ANSWERS = ("/v1/files/{file_id}/answer", "/dashboard/questions/{file_id}")
UNTIMED = {*(("POST", place) for place in (*UPLOADS, *_ANSWERS)), ("GET", "/v1/files/{file_id}/content")}
"""Requests whose time follows from how many private rows there are."""
FRAMEWORK: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own telemetry, off: it would send paths, queries and the words of errors wherever the environment says."""
CLOSED = 499
"""In place of a status: the client went away before there was one."""
logger = logging.getLogger(__name__)


class RequestMetrics:
    """Counters of requests, by route template."""

    def __init__(self) -> None:
        self.count = Counter("tacit_http_requests", "Requests", ["method", "route", "status"], registry=None)
        self.seconds = Histogram(
            "tacit_http_request_seconds",
            "From the request's head to the answer's end",
            ["method", "route"],
            registry=None,
        )


class Observed:
    """Counts and logs each request when it is over."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), CLOSED
        failure: Exception | None = None

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with about(request_id=scope["request_id"]):
            try:
                await self.app(scope, receive, send_seen)
            except Exception as error:
                status, failure = 500, error
                raise
            finally:
                self._note(scope, status, time.perf_counter() - began, failure)

    def _note(self, scope: Scope, status: int, seconds: float, failure: Exception | None) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = template(scope)
        facts: dict[str, str | int] = {"method": method, "route": route, "status": status}
        if (method, route) not in UNTIMED:
            facts["milliseconds"] = round(1000 * seconds)
            self.metrics.seconds.labels(method, route).observe(seconds)
        self.metrics.count.labels(method, route, status).inc()
        logger.info("request", extra={"facts": facts})
        if tracer := scope.get("state", {}).get("tracer"):
            from api.tracing import record

            record(tracer, scope, facts, status, failure)


def template(scope: Scope) -> str:
    """The route that a request took, with names in place of ids; what no route knows is `none`."""
    route = getattr(scope.get("route"), "path", None)
    return "none" if route is None else scope.get("root_path", "") + route


@contextlib.contextmanager
def serving(service: Resources, requests: RequestMetrics) -> Iterator[None]:
    """Metrics are answered on a port of their own, where the settings name one."""
    settings = service.settings
    if settings.metrics_port is None:
        yield
        return
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    for collector in (requests.count, requests.seconds, OncePerMinute(lambda: _of_service(service))):
        registry.register(collector)
    stop = serve(registry, settings.metrics_host, settings.metrics_port)
    try:
        yield
    finally:
        stop()


def _of_service(service: Resources) -> Iterator[Metric]:
    ready = GaugeMetricFamily("tacit_ready", "1: works, as /readyz says", labels=["check"])
    for name, word in look(service).items():
        ready.add_metric([name], float(word == "ok"))
    yield ready
    ages = GaugeMetricFamily("tacit_keeper_age_minutes", "Whole minutes since the keeper last did it", labels=["duty"])
    ages.add_metric(["turn"], service.keeper.age // 60)
    ages.add_metric(["verification"], service.keeper.verified_age // 60)
    yield ages
    # Whole GiB: less would tell the size of an upload.
    room = GaugeMetricFamily("tacit_disk_free_gib", "Whole GiB that are free", labels=["place"])
    for name, folder in places(service).items():
        room.add_metric([name], disk.free(folder) // 2**30)
    yield room
    try:
        with service.engine.connect() as connection:
            counted = connection.execute(sa.select(job.c.status, sa.func.count()).group_by(job.c.status)).all()
            frozen = sa.select(sa.func.count()).where(budget.c.frozen_reason.is_not(None))
            yield GaugeMetricFamily(
                "tacit_budgets_frozen", "Frozen budgets", value=connection.execute(frozen).scalar_one()
            )
    except sa.exc.SQLAlchemyError as error:
        logger.warning("the jobs were not counted: %s", type(error).__name__)
        return
    jobs = GaugeMetricFamily("tacit_jobs", "Jobs by status, as of the last minute", labels=["status"])
    for status, number in counted:
        jobs.add_metric([status], number)
    yield jobs
