"""A service over a real database and broker, with a key for each scope in two tenants."""

import functools
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from domain.access.bootstrap import ALL_SCOPES
from domain.access.grants import Viewer
from domain.access.keys import key_mac, key_seal, new_key
from domain.ingest.check import check
from domain.kit.settings import ApiSettings, secret_bytes
from domain.kit.tables import api_key, tenant
from tests.conftest import MASTER_KEY, Database

JOBS = "/v1/fine_tuning/jobs"
PROJECT = "lab"
"""What the analysts' keys belong to."""
ROWS = 400


def csv_rows(tag: str = "") -> bytes:
    """Rows that are this tag's alone: rows that were uploaded before would go to the budget that holds them."""
    return b"text,label\n" + b"".join(f"row number {i}{tag},{i % 2}\n".encode() for i in range(ROWS))


CSV = csv_rows()
PRIVATE = {"purpose": "fine-tune", "privacy_budget[epsilon]": "8", "declared_size": str(ROWS), "labels": "0,1"}


@dataclass
class World:
    """One service and the keys to it, as [tenant][scope]."""

    database: Database
    settings: ApiSettings
    client: TestClient
    keys: dict[str, dict[str, str]]

    def call(self, method: str, path: str, scope: str = "admin", tenant: str = "one", **options: Any):
        headers = {"Authorization": f"Bearer {self.keys[tenant][scope]}"} | options.pop("headers", {})
        return self.client.request(method, path, headers=headers, **options)

    def get(self, path: str, scope: str = "analyst", **options: Any):
        return self.call("GET", path, scope, **options)

    def post(self, path: str, body: Any = None, scope: str = "analyst", **options: Any):
        return self.call("POST", path, scope, json=body, **options)

    def upload(
        self,
        content: bytes | None = None,
        form: dict[str, Any] = PRIVATE,
        name: str = "rows.csv",
        scope: str = "steward",
        granted: bool = True,
        **options: Any,
    ):
        """Without content: rows that no other upload has. The tenant's analyst may use the budget unless `granted` is
        off."""
        rows = csv_rows(f" of {secrets.token_hex(8)}") if content is None else content
        answer = self.call("POST", "/v1/files", scope, data=form, files={"file": (name, rows)}, **options)
        if granted and answer.status_code == 201 and answer.json()["budget"]:
            self.grant(answer.json()["budget"], **{k: v for k, v in options.items() if k == "tenant"})
        return answer

    def grant(self, budget: str, tenant: str = "one", **terms: Any) -> dict[str, Any]:
        """Let the tenant's analyst use a budget; a grant that is there already stays."""
        body = {"project": PROJECT} | terms
        answer = self.post(f"/v1/budgets/{budget}/grants", body, "steward", tenant=tenant)
        assert answer.status_code in (201, 409), answer.text
        return answer.json()

    def viewer(self, scope: str, tenant: str = "one") -> Viewer:
        """The key as the domain sees it."""
        mac = key_mac(self.keys[tenant][scope], secret_bytes(self.settings.key_pepper))
        with self.engine("admin").connect() as connection:
            row = connection.execute(sa.select(api_key).where(api_key.c.mac == mac)).one()
        return Viewer(row.id, row.tenant_id, frozenset(row.scopes), row.project)

    def private_file(self, **form: str) -> dict[str, Any]:
        """A file with a budget of its own."""
        answer = self.upload(form=PRIVATE | form)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def submit(self, training_file: str, epsilon: float = 3.0, **body: Any) -> dict[str, Any]:
        """A job of its own, whatever was asked for before."""
        answer = self.post(
            JOBS, job_body(training_file, epsilon, **body), headers={"Idempotency-Key": secrets.token_hex(8)}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    def engine(self, login: str) -> sa.Engine:
        """A connection as superuser, admin, api or worker."""
        return _engine(getattr(self.database, f"{login}_url"))


@functools.cache
def _engine(url: str) -> sa.Engine:
    """One for all that look through this login: a new session costs more than most of what tests ask."""
    return sa.create_engine(url, pool_pre_ping=True)


def job_body(training_file: str, epsilon: float = 3.0, **body: Any) -> dict[str, Any]:
    method = {"type": "lora", "lora": {"r": 4, "hyperparameters": {"steps": 40, "batch_size": 20}}}
    basis = {"model": "minilm-l6", "training_file": training_file, "method": method, "privacy": {"epsilon": epsilon}}
    return basis | body


def make_settings(database: Database, broker: str, folder: Path) -> ApiSettings:
    return ApiSettings(
        database_url=database.api_url,
        broker_url=broker,
        blobs=str(folder / "blobs"),
        master_key=MASTER_KEY,
        key_pepper=secrets.token_hex(32),
        fingerprint_key=secrets.token_hex(32),
        signing_key=secrets.token_hex(32),
        policy_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex(),
        witness=folder / "heads.jsonl",
        upload_limit=2**20,
        rate_limit=0,
        webhook_hosts="hooks.example",  # which nobody has: it is not found
    )


def make_keys(
    database: Database, settings: ApiSettings, tenants: Sequence[str] = ("one", "two")
) -> dict[str, dict[str, str]]:
    keys: dict[str, dict[str, str]] = {name: {} for name in tenants}
    engine = sa.create_engine(database.admin_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for name, of_tenant in keys.items():
            connection.execute(tenant.insert().values(id=f"tenant_{name}", name=name))
            for scope in ALL_SCOPES:
                made = new_key(secret_bytes(settings.key_pepper))
                of_tenant[scope] = made.text
                values = {"id": made.id, "tenant_id": f"tenant_{name}", "mac": made.mac, "scopes": [scope]}
                values["project"] = PROJECT if scope == "analyst" else None
                seal = key_seal(values, secret_bytes(settings.key_pepper))
                row = {**values, "name": scope, "prefix": made.prefix, "seal": seal}
                connection.execute(api_key.insert().values(row))
    return keys


@pytest.fixture(scope="module")
def world(module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = make_settings(module_database, redis_server, tmp_path_factory.mktemp("world"))
    keys = make_keys(module_database, settings)
    with TestClient(create_app(settings)) as client:
        yield World(module_database, settings, client, keys)


@pytest.fixture(scope="module")
def quick_checks() -> Iterator[None]:
    """Files are checked in this process: for tests that are about something else."""
    with pytest.MonkeyPatch.context() as patch:
        for caller in ("api.files.endpoints", "domain.files.recognise"):
            patch.setattr(f"{caller}.run_check", check)
        yield


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    """The same service under uvicorn, on a port of its own."""
    with running(create_app(world.settings)) as address:
        yield address


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of an application under uvicorn."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, seconds: float = 60
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "the API ended"
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


@pytest.fixture
def training(world: World) -> dict[str, Any]:
    """A private file with a budget of 8 that nothing has touched."""
    return world.private_file()


@pytest.fixture
def at_work(world: World) -> Iterator[sa.Connection]:
    """The worker's login."""
    with world.engine("worker").connect() as connection:
        yield connection
