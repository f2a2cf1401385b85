"""Which workers answer over the broker, what they run, and whose jobs they take. Never what they are at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain.jobs.hints import sender

ABOUT = "tacit_about"
"""The command of Celery's remote control that a worker answers."""
PATIENCE = 1.0
"""Seconds in which workers answer; one that is busy with a job answers as well, for its job is another process."""


@dataclass(frozen=True)
class LiveWorker:
    """A worker that answered."""

    name: str
    known: bool
    """False: of an earlier release, which does not say the rest."""
    silo: str | None
    versions: Mapping[str, str]


def live(broker_url: str) -> list[LiveWorker]:
    """The workers that answer within PATIENCE, by name. Raises one of hints.HINT_ERRORS."""
    found: list[LiveWorker] = []
    for reply in sender(broker_url).control.broadcast(ABOUT, reply=True, timeout=PATIENCE) or []:
        found += [_worker(name, said) for name, said in reply.items()]
    return sorted(found, key=lambda worker: worker.name)


def _worker(name: str, said: Any) -> LiveWorker:
    if not isinstance(said, Mapping) or not isinstance(said.get("versions"), Mapping):
        return LiveWorker(name, False, None, {})
    silo = said.get("silo")
    versions = {str(of): str(number) for of, number in said["versions"].items()}
    return LiveWorker(name, True, None if silo is None else str(silo), versions)
