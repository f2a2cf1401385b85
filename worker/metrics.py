"""What a worker tells Prometheus: whether it is at work, and whether its reconciler looks."""

from collections.abc import Iterator

from celery.worker import state
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily

from domain.kit.metrics import OncePerMinute, serve

LOOKS = Counter(
    "tacit_reconciler_looks", "Looks at open jobs: done, or cut short by an error", ["result"], registry=None
)


def serve_metrics(host: str, port: int) -> None:
    """In the worker itself, never in its pool's processes; ends with the process."""
    registry = CollectorRegistry()
    registry.register(LOOKS)
    registry.register(OncePerMinute(_busy))
    serve(registry, host, port)


def _busy() -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "tacit_worker_busy", "Whether a job is worked on, as of the last minute", value=len(state.active_requests)
    )
