"""A service over a real database, with a key for each scope in two tenants. The broker is always away."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.bootstrap import ALL_SCOPES
from domain.keys import new_key
from domain.settings import ApiSettings, secret_bytes
from domain.tables import api_key, tenant
from tests.conftest import Database


@dataclass
class World:
    """One service and the keys to it, as [tenant][scope]."""

    database: Database
    settings: ApiSettings
    client: TestClient
    keys: dict[str, dict[str, str]] = field(default_factory=dict)

    def headers(self, scope: str = "admin", tenant: str = "one") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[tenant][scope]}"}

    def call(self, method: str, path: str, scope: str = "admin", tenant: str = "one", **options):
        headers = self.headers(scope, tenant) | options.pop("headers", {})
        return self.client.request(method, path, headers=headers, **options)

    def get(self, path: str, scope: str = "admin", **options):
        return self.call("GET", path, scope, **options)

    def post(self, path: str, body=None, scope: str = "admin", **options):
        return self.call("POST", path, scope, json=body, **options)

    def admin_engine(self) -> sa.Engine:
        return sa.create_engine(self.database.admin_url, poolclass=sa.NullPool)


def make_settings(database: Database, folder: Path) -> ApiSettings:
    return ApiSettings(
        database_url=database.api_url,
        broker_url="redis://127.0.0.1:1/0",
        blobs=str(folder / "blobs"),
        key_pepper=secrets.token_hex(32),
        fingerprint_key=secrets.token_hex(32),
        upload_limit=2 * 2**20,
    )


def make_keys(database: Database, settings: ApiSettings) -> dict[str, dict[str, str]]:
    keys: dict[str, dict[str, str]] = {}
    engine = sa.create_engine(database.admin_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for name in ("one", "two"):
            connection.execute(tenant.insert().values(id=f"tenant_{name}", name=name))
            for scope in ALL_SCOPES:
                made = new_key(secret_bytes(settings.key_pepper))
                keys.setdefault(name, {})[scope] = made.text
                connection.execute(
                    api_key.insert().values(
                        id=made.id,
                        tenant_id=f"tenant_{name}",
                        name=scope,
                        prefix=made.prefix,
                        mac=made.mac,
                        scopes=[scope],
                    )
                )
    return keys


@pytest.fixture(scope="module")
def world(module_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = make_settings(module_database, tmp_path_factory.mktemp("world"))
    keys = make_keys(module_database, settings)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield World(module_database, settings, client, keys)
