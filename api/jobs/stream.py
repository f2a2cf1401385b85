"""A job's events as Server-Sent Events. Each look at the database is a short transaction; none is open in between."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import sqlalchemy as sa
from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Receive, Scope, Send

from api.auth import Caller, find_caller
from api.deps import Resources
from api.errors import HttpError, problem
from api.jobs.schemas import Event, event_of, event_prefix
from api.pages import fetch_numbered
from domain.jobs import events, reading
from domain.kit.refusals import Refusal
from domain.kit.statuses import ENDED
from domain.kit.tables import api_key

LOOK = 2.0
"""Seconds between two looks."""
HEARTBEAT = 15.0
"""Seconds after which a silent stream says that it lives."""
AT_ONCE = 100
MOST_STREAMS = 10
"""Of one key, in one process of the API."""
_SENT = {
    "type": "object",
    "description": "one event of the stream; `data` is an Event as JSON",
    "properties": {"id": {"type": "string"}, "data": {"type": "string"}},
}
STREAM_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _SENT}}},
    204: {"description": "A stream was asked for; the job has ended and nothing is left to tell."},
}


def fetch_events(
    connection: sa.Connection, job_id: str, *, after: str | None = None, limit: int, order: str
) -> tuple[Sequence[sa.Row[Any]], bool]:
    """Events of a job that the caller has found, and whether there are more. Raises Invalid for a foreign cursor."""
    scoped = events.numbered(job_id)
    number = scoped.selected_columns.number
    return fetch_numbered(
        connection, scoped, number, prefix=event_prefix(job_id), after=after, limit=limit, order=order
    )


def event_stream(
    connection: sa.Connection, service: Resources, caller: Caller, job: sa.Row[Any], after: str | None
) -> Response:
    """The events of a job that the caller may see, from right after `after` on. Raises Invalid for a foreign cursor."""
    found, _ = fetch_events(connection, job.id, after=after, limit=1, order="asc")
    if job.status in ENDED and not found:
        return Response(status_code=204)  # an EventSource comes back until it is told this
    return _EventStream(service, caller, job.id, after)


class _EventStream(StreamingResponse):
    """Counts itself while it is sent: an answer that never begins holds no place."""

    media_type = "text/event-stream"

    def __init__(self, service: Resources, caller: Caller, job_id: str, after: str | None) -> None:
        super().__init__(_events(service, caller, job_id, after), headers={"x-accel-buffering": "no"})
        self._open, self._key = service.streams, caller.key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._open[self._key] >= MOST_STREAMS:
            refusal = problem(
                Request(scope),
                429,
                "too_many_streams",
                f"this key has {MOST_STREAMS} event streams open already; close one, or ask for pages",
                headers={"retry-after": "15"},
            )
            return await refusal(scope, receive, send)
        self._open[self._key] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._open[self._key] -= 1
            self._open += {}  # forgets keys without a stream


async def _events(service: Resources, caller: Caller, job_id: str, after: str | None) -> AsyncIterator[bytes]:
    """Ends after the last event of the job, and when the key may not see the job any more or the database is away: the
    client comes back, and hears why."""
    yield format_sse_event(retry=int(LOOK * 1000))
    silent = 0.0
    while True:
        try:
            async with service.slots:
                found, over = await to_thread.run_sync(_look, service, caller, job_id, after)
        except (HttpError, Refusal, sa.exc.SQLAlchemyError):
            return
        for event in found:
            yield format_sse_event(data_str=event.model_dump_json(), id=event.id)
            after, silent = event.id, 0.0
        if over:
            return
        await anyio.sleep(LOOK)
        silent += LOOK
        if silent >= HEARTBEAT:
            yield KEEPALIVE_COMMENT
            silent = 0.0


def _look(service: Resources, caller: Caller, job_id: str, after: str | None) -> tuple[list[Event], bool]:
    """The events after `after`, and whether they are the last that there will be."""
    find_caller(service, api_key.c.id == caller.key_id)
    with service.engine.begin() as connection:
        job = reading.require(connection, caller, job_id)
        rows, more = fetch_events(connection, job_id, after=after, limit=AT_ONCE, order="asc")
    return [event_of(row, len(job.steps_by_phase)) for row in rows], job.status in ENDED and not more
