"""The spans of an attempt and of its phases, joined to what the API says of the job by the job's id.

A hint is a job's id and nothing else, so a caller's trace ends at the API. Times are whole minutes, as in a worker's
log: the length of a chunk would tell how long a step takes.
"""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from domain.kit.logs import type_name
from domain.kit.metrics import MINUTE
from ledger.errors import LedgerError
from ledger.work import Lease
from worker.ends import TRAINING_FAILED
from worker.errors import DataPhaseFailed, Refused

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


class Spans:
    """The span of one attempt, and in it one phase after another; nothing without a tracer."""

    def __init__(self, tracer: "Tracer | None", lease: Lease) -> None:
        self._tracer = tracer
        self._about = {"tacit.job.id": lease.job_id, "tacit.attempt": lease.fence}
        self._open: list[Span] = []
        self._finished = False

    def __enter__(self) -> Self:
        self._begin("attempt")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = "finished" if self._finished else "stopped"
        while self._open:
            self._end(ended, error)

    def phase(self, name: str) -> None:
        """The phase before is done, this one begins."""
        if len(self._open) > 1:
            self._end("finished")
        self._begin(name)

    def finish(self) -> None:
        """What the attempt was for is done."""
        self._finished = True

    def _begin(self, name: str) -> None:
        if self._tracer is None:
            return
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        above = set_span_in_context(self._open[-1], Context()) if self._open else Context()
        self._open.append(self._tracer.start_span(name, above, attributes=self._about, start_time=_this_minute()))

    def _end(self, outcome: str, error: BaseException | None = None) -> None:
        from opentelemetry.trace import StatusCode

        span = self._open.pop()
        span.set_attribute("tacit.outcome", outcome if error is None else _code(error))
        if error is not None and not isinstance(error, LedgerError):  # to be told to stop is no failure
            span.set_status(StatusCode.ERROR)
        span.end(_this_minute())


def _code(error: BaseException) -> str:
    """The error's public code where it has one; of what the rows may have done, no more than the analyst is told."""
    if isinstance(error, DataPhaseFailed):
        return TRAINING_FAILED.code
    return error.code if isinstance(error, Refused) else type_name(error)


def _this_minute() -> int:
    """Nanoseconds."""
    return int(time.time() // MINUTE) * MINUTE * 10**9
