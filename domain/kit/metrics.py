"""Prometheus metrics of one process, on a port of their own, for the operator alone.

They obey the rule of logs: no tenant, job, file or key is a label, nothing depends on a row, and what moves with jobs
moves once a minute, so that no scrape times a step or the end of a job more finely than the job's own record.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.registry import Collector

MINUTE = 60


def serve(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Answer GET /metrics from a thread; returns what ends it. Raises OSError when the port is taken."""
    server, thread = start_http_server(port, addr=host, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class OncePerMinute(Collector):
    """Metrics that are read anew in each minute of the clock, however often somebody scrapes."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        """read: raises nothing; what cannot be read is left out."""
        self._read = read
        self._minute = -1
        self._known: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        return []  # nothing is read before somebody asks

    def collect(self) -> Iterator[Metric]:
        minute = int(time.time() // MINUTE)
        if minute != self._minute:
            self._known, self._minute = list(self._read()), minute
        yield from self._known
