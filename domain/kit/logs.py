"""Logs for the operator: a JSON object a line on standard error, with the ids of the request or job that it is about.

What reaches a log obeys the same rule as what reaches an analyst: types and places of errors, never their words, which
may quote a row; and in a worker, times to the minute.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Lines that are logged inside carry these ids."""
    token = _about.set({**(_about.get() or {}), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def type_name(error: BaseException) -> str:
    """The type of an error with its module."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def describe(error: BaseException) -> str:
    """Type and place of an error and of what caused it, never its message: a message may quote a row."""
    parts = []
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)
        where = "".join(f"\n    {f.filename}:{f.lineno} in {f.name}" for f in frames)
        parts.append(f"{type_name(current)}{where}")
        current = current.__cause__ or current.__context__
    return "\n  after ".join(parts)


class JsonLines(logging.Formatter):
    """`extra={"facts": {...}}` of a call becomes members of the line; an exception becomes its `describe`."""

    def __init__(self, *, to_the_minute: bool) -> None:
        super().__init__()
        self._timespec = "minutes" if to_the_minute else "milliseconds"

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        line = {
            "time": at.isoformat(timespec=self._timespec) + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().strip(),
            **(_about.get() or {}),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, default=str)


def set_up(*, to_the_minute: bool = False) -> None:
    """For the whole process, in place of what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(to_the_minute=to_the_minute))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
