"""The places of an installation with silos: each has a folder and a master key of its own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.kit.settings import ApiSettings, WorkerSettings
from tests.conftest import MASTER_KEY, Database

KEYS = {"general": MASTER_KEY, "exchange": "e1" * 32, "a": "a1" * 32, "b": "b1" * 32, "c": "c1" * 32}


@dataclass(frozen=True)
class Installation:
    """What its processes are told."""

    database: Database
    broker: str
    folder: Path
    tenants: dict[str, list[str]]
    """Of each silo."""

    def place(self, name: str) -> Path:
        return self.folder / ("blobs" if name == "general" else name)

    def worker(self, silo: str | None, **other: Any) -> WorkerSettings:
        """A worker's settings; other: in place of what it should have."""
        own = silo or "general"
        url = self.database.worker_url if silo is None else self.database.silo_urls[silo]
        values = {"database_url": url, "silo": silo, "blobs": str(self.place(own)), "master_key": KEYS[own]}
        return WorkerSettings(**self._both() | values | other)

    def api(self) -> ApiSettings:
        places = {}
        for name, tenants in self.tenants.items():
            key = self.folder / f"{name}.key"
            key.write_text(KEYS[name])
            places[name] = {"tenants": tenants, "blobs": str(self.place(name)), "master_key_file": str(key)}
        secrets = dict.fromkeys(("key_pepper", "fingerprint_key", "signing_key"), "33" * 32)
        own = {"database_url": self.database.api_url, "blobs": str(self.place("general")), "master_key": MASTER_KEY}
        return ApiSettings(**self._both() | own | secrets, silos=places)

    def environment(self, silo: str | None) -> dict[str, str]:
        """A worker's variables."""
        settings = self.worker(silo).model_dump(exclude_none=True, exclude_defaults=True)
        plain = {name: getattr(value, "get_secret_value", lambda v=value: v)() for name, value in settings.items()}
        return {f"TACIT_{n.upper()}": v if isinstance(v, str) else json.dumps(v) for n, v in plain.items()}

    def _both(self) -> dict[str, Any]:
        exchange = {"exchange": str(self.place("exchange")), "exchange_key": KEYS["exchange"]}
        return {"broker_url": self.broker, **exchange}
