"""What the service needs of its surroundings, tried for real."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from kombu import Connection

from api.deps import Resources
from domain.jobs.hints import BROKER_OPTIONS
from domain.keeping.keeper import Word
from domain.kit import disk
from domain.storage import blobs
from ledger.guard import require_intact

logger = logging.getLogger(__name__)


def look(service: Resources) -> dict[str, Word]:
    """How each thing does. Without its broker the service still takes jobs, and workers find them a little later.
    Without any base model that can be used it takes none."""
    return {
        "database": "ok" if _works("database", lambda: _database(service)) else "failed",
        "blobs": "ok" if _works("blobs", lambda: blobs.probe(service.store)) else "failed",
        "disk": "ok" if _works("disk", lambda: _disk(service)) else "failed",
        "broker": "ok" if _works("broker", lambda: _broker(service)) else "warning",
        "witness": service.keeper.witness_word,
        "keeper": service.keeper.word,
        "models": "ok" if service.models.usable else "warning",
    }


def places(service: Resources) -> dict[str, Path]:
    """Folders of this machine that the API writes to."""
    found = {"uploads": Path(tempfile.gettempdir()) if service.store.folder is None else service.store.folder}
    if service.settings.witness is not None:
        found["witness"] = service.settings.witness.parent
    return found


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


def _disk(service: Resources) -> None:
    for folder in places(service).values():
        disk.require_room(folder, 0, service.settings.disk_reserve)


def _broker(service: Resources) -> None:
    options = {**BROKER_OPTIONS, "socket_connect_timeout": 1, "socket_timeout": 1}
    with Connection(service.settings.broker_url.get_secret_value(), transport_options=options) as connection:
        connection.connect()
        connection.channel()
