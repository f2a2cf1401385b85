"""The service as `tacit up` runs it, in a folder that is removed: Postgres, Redis and the API; and no worker, so that
jobs stay queued, unless one is started."""

import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cli.embedded import postgres, redis, roles, secrets, services, stack
from cli.embedded.processes import PROC, Process, marked, tail
from domain.access.bootstrap import create_first_key

MIB = 2**20
PROJECT = "bench"
"""What the analysts' keys belong to."""


@dataclass(frozen=True)
class Served:
    """A running service; `admin_key` has every scope."""

    url: str
    data: Path
    environment: dict[str, str]
    """The API's."""
    api: Process
    admin_key: str
    database: str
    """The API's own URL of its database."""
    superuser_database: str

    def client(self, key: str | None = None) -> httpx.Client:
        """A client with a key, by default the administrator's."""
        headers = {"authorization": f"Bearer {key or self.admin_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=None, trust_env=False)

    def memory(self) -> "Memory":
        """Of the API's process now."""
        return memory(self.api.pid)

    def checks(self) -> list[int]:
        """The processes beside the API's that were started for it: those that check uploads."""
        return [pid for pid in marked(services.MARK, str(self.data)) if pid != self.api.pid]


@dataclass(frozen=True)
class Memory:
    """Bytes of one process. pss: shared pages count by the share; rss: whole; peak: the most that rss ever was."""

    pss: int
    rss: int
    peak: int


def memory(pid: int) -> Memory:
    """Raises OSError when the process is gone (proc_pid_smaps(5), proc_pid_status(5))."""
    rollup = (PROC / str(pid) / "smaps_rollup").read_text()
    status = (PROC / str(pid) / "status").read_text()
    return Memory(_kib(rollup, "Pss"), _kib(status, "VmRSS"), _kib(status, "VmHWM"))


@contextmanager
def serving(**settings: str) -> Iterator[Served]:
    """A service with these TACIT_* settings beside its own: no limit on requests. Durability is the default: every
    commit waits for the disk. Raises StackError."""
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as name:
        Path(name).chmod(0o711)  # root runs Postgres as another user
        data = Path(name) / "data"
        stack.prepare(data)
        known = secrets.load(data)
        database = postgres.start(
            data / "postgres", password=known.superuser_password, log=data / "logs" / "postgres.log"
        )
        try:
            broker = redis.start(data / "redis", log=data / "logs" / "redis.log")
            try:
                key = _prepare(database, known, data)
                with _api(data, {"TACIT_RATE_LIMIT": "0", **settings}) as (process, url, environment):
                    own = database.url(roles.API, known.api_password, stack.DATABASE)
                    superuser = database.url(postgres.SUPERUSER, known.superuser_password, stack.DATABASE)
                    yield Served(url, data, environment, process, key, own, superuser)
            finally:
                broker.stop()
        finally:
            database.stop()


@contextmanager
def working(served: Served) -> Iterator[Process]:
    """A worker beside the API; it may still be starting."""
    environment = stack.worker_environment(served.data)
    process = services.ServiceProcess("worker", "worker", (), environment, served.data / "logs" / "worker.log").start()
    try:
        yield process
    finally:
        process.stop(signal.SIGTERM, stack.WORKER_GRACE)


def _prepare(database: postgres.Postgres, known: secrets.Secrets, data: Path) -> str:
    """The database at this version, its logins, the master key and the first key of the API."""
    from migrations import upgrade

    roles.establish(database, known, stack.DATABASE)
    admin_url = stack.admin_url(data)
    upgrade(admin_url)
    secrets.save(data / "secrets" / "master-key", known.master_key)
    made = create_first_key(admin_url, bytes.fromhex(known.key_pepper), lambda key: None)
    assert made is not None
    return made


@contextmanager
def _api(data: Path, settings: dict[str, str]) -> Iterator[tuple[Process, str, dict[str, str]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = stack.api_environment(data) | settings
    log = data / "logs" / "api.log"
    address = ("--host", "127.0.0.1", "--port", str(port))
    process = services.ServiceProcess("api", "api", address, environment, log).start()
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, log)
        yield process, url, environment
    finally:
        process.stop(signal.SIGTERM, stack.API_GRACE)


def _wait(process: Process, url: str, log: Path) -> None:
    deadline = time.monotonic() + stack.API_START
    while process.running() and time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz", trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:  # not yet listening
            time.sleep(0.1)
    raise stack.StackError(f"The API did not come up. The end of {log}:\n{tail(log)}")


def make_key(client: httpx.Client, scope: str) -> str:
    """A key of one scope; an analyst's belongs to PROJECT."""
    body = {"name": scope, "scopes": [scope], "project": PROJECT if scope == "analyst" else None}
    return str(answered(client.post("/v1/keys", json=body))["key"])


def answered(response: httpx.Response) -> dict[str, Any]:
    """What was answered. Raises RuntimeError, with the service's own words, for a refusal."""
    if response.is_error:
        raise RuntimeError(f"{response.request.method} {response.request.url.path}: {response.text[:500]}")
    body: dict[str, Any] = response.json()
    return body


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None, name
    return int(found[1]) * 1024
