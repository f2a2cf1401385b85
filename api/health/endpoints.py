"""Whether the process lives, and whether it can do its work."""

import logging
from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Response
from kombu import Connection
from pydantic import BaseModel

from api.deps import Resources, Service
from domain import blobs
from domain.hints import BROKER_OPTIONS
from ledger.guard import require_intact

logger = logging.getLogger(__name__)
router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What works. Without its broker the service still takes jobs; workers find them a little later."""

    status: Literal["ok", "failed"]
    checks: dict[str, Literal["ok", "warning", "failed"]]


@router.get("/healthz")
def alive() -> Health:
    """Always ok while the process can answer."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness}})
def ready(service: Service, response: Response) -> Readiness:
    """Ledger whole and at this revision, blob store writable, broker reachable. Reasons are in the log."""
    checks: dict[str, Literal["ok", "warning", "failed"]] = {
        "database": "ok" if _works("database", lambda: _database(service)) else "failed",
        "blobs": "ok" if _works("blobs", lambda: blobs.probe(service.store)) else "failed",
        "broker": "ok" if _works("broker", lambda: _broker(service)) else "warning",
    }
    failed = "failed" in checks.values()
    response.status_code = 503 if failed else 200
    return Readiness(status="failed" if failed else "ok", checks=checks)


def _works(name: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except Exception as error:  # noqa: BLE001  whatever went wrong, the answer is that it does not work
        logger.warning("not ready: %s: %s: %s", name, type(error).__name__, error)
        return False
    return True


def _database(service: Resources) -> None:
    with service.engine.connect() as connection:
        require_intact(connection)


def _broker(service: Resources) -> None:
    options = {**BROKER_OPTIONS, "socket_connect_timeout": 1, "socket_timeout": 1}
    with Connection(service.settings.broker_url.get_secret_value(), transport_options=options) as connection:
        connection.connect()
        connection.channel()
