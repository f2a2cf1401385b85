"""Migration, API and worker as docker-compose.yml starts them: its commands, its environment and nothing else, secrets
as files, against a Postgres, a Redis and an S3 store of their own over TCP."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_client
import yaml
from moto.server import ThreadedMotoServer

from cli.client import Client
from cli.embedded import postgres, redis
from tests.conftest import _started
from tests.deploy.image import as_the_image_does
from tests.worker import tiny

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PATIENCE = 300.0  # seconds: a fresh worker imports torch, which takes its time on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


@dataclass
class Host:
    """What Docker would do: names of hosts and mounted paths lead somewhere."""

    folder: Path
    api_port: int = field(default_factory=free_port)
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def paths(self) -> dict[str, str]:
        inside = {"/run/secrets": "secrets", "/etc/tacit": "configs", "/witness": "witness", "/first-key": "first-key"}
        return {path: str(self.folder / name) for path, name in inside.items()}

    def resolved(self, text: str) -> str:
        for path, place in self.paths.items():
            text = text.replace(path, place)
        return re.sub(r"\$\{TACIT_\w+:-\}", "", text)

    def environment(self, name: str) -> dict[str, str]:
        """The image's PATH and HOME, and what the file says."""
        own = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": str(self.folder)}
        return own | {key: self.resolved(str(value)) for key, value in SERVICES[name]["environment"].items()}

    def command(self, name: str) -> list[str]:
        words = [self.resolved(word) for word in SERVICES[name]["command"]]
        here = {"0.0.0.0": "127.0.0.1", "8000": str(self.api_port)}
        return [here.get(word, word) for word in words]

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                self.command(name), cwd=self.folder, env=self.environment(name), stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-4000:]


@pytest.fixture
def host(tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)
    for place in made.paths.values():
        if not place.endswith("secrets"):
            Path(place).mkdir()
    secrets = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy" / "make-secrets.sh", secrets], check=True)
    ports = {"postgres:5432": free_port(), "broker:6379": free_port(), "store:9000": free_port()}
    for file in (path for path in secrets.iterdir() if path.is_file()):
        text = file.read_text()
        for name, port in ports.items():
            text = text.replace(name, f"127.0.0.1:{port}")
        file.chmod(0o600)
        file.write_text(text)

    monkeypatch.setattr(postgres, "PORT", ports["postgres:5432"])
    database = _started(
        lambda: postgres.start(
            short_folder / "postgres-tcp",
            password=(secrets / "postgres_password").read_text().strip(),
            log=tmp_path / "postgres.log",
            options=["listen_addresses=127.0.0.1", "fsync=off"],
        )
    )
    as_the_image_does(database, (secrets / "postgres_password").read_text().strip(), secrets)
    _, *arguments = SERVICES["broker"]["command"]
    broker = [redis.find_program(), *map(made.resolved, arguments)]
    broker += ["--port", str(ports["broker:6379"]), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    with (tmp_path / "broker.log").open("wb") as log:
        made.running.append(subprocess.Popen(broker, stdout=log, stderr=log))
    store = ThreadedMotoServer("127.0.0.1", ports["store:9000"], verbose=False)
    store.start()
    httpx.put(f"http://127.0.0.1:{ports['store:9000']}/tacit", trust_env=False).raise_for_status()
    yield made
    for process in reversed(made.running):
        process.terminate()
    for process in reversed(made.running):
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    store.stop()
    database.stop()


@pytest.mark.slow
@pytest.mark.verify  # what the file says is read by test_compose.py; the stack runs in test_up.py
def test_a_job_succeeds_on_the_files_environment_alone(host: Host) -> None:
    model = host.folder / "tiny"
    model.mkdir()
    tiny.save_model(model)
    (host.folder / "configs" / "models.json").write_text(json.dumps({"tiny": str(model)}))

    for _ in range(2):  # at every start; the second time there is nothing to do
        migrated = host.start("migrate")
        assert migrated.wait(PATIENCE) == 0, host.said("migrate")
    key = (host.folder / "first-key" / "admin-key").read_text()
    api, worker = host.start("api"), host.start("worker")
    url = f"http://127.0.0.1:{host.api_port}"

    def ready() -> bool:
        assert api.poll() is None, host.said("api")
        assert worker.poll() is None, host.said("worker")
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    until(ready, lambda: host.said("api"))
    client = Client(url, key)
    texts, labels = tiny.rows(400, seed=1)
    rows = host.folder / "rows.jsonl"
    lines = (json.dumps({"text": t, "label": tiny.LABELS[k]}) for t, k in zip(texts, labels, strict=True))
    rows.write_text("\n".join(lines))
    form = {"purpose": "fine-tune", "privacy_budget[epsilon]": "8", "declared_size": "400", "labels": "publish"}
    uploaded = client.upload("/v1/files", rows, form | {"max_length": "16"})
    method = {"type": "lora", "lora": {"r": 2, "hyperparameters": {"steps": 5, "batch_size": 50}}}
    job = client.post("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": uploaded["id"], "method": method})

    def ended() -> bool:
        assert worker.poll() is None, host.said("worker")
        return client.get(f"/v1/fine_tuning/jobs/{job['id']}")["status"] not in ("queued", "running")

    until(ended, lambda: host.said("worker"))
    done = client.get(f"/v1/fine_tuning/jobs/{job['id']}")
    assert done["status"] == "succeeded", (done["error"], host.said("worker"))
    with client.stream(f"/v1/fine_tuning/jobs/{job['id']}/adapter") as answer:
        assert answer.read()[:2] == b"PK"

    # The health check of the worker's container, and the broker's password.
    ping = [host.resolved(word) for word in SERVICES["worker"]["healthcheck"]["test"][1:]]
    assert subprocess.run(ping, env=host.environment("worker"), cwd=host.folder, check=False).returncode == 0
    broker = (host.folder / "secrets" / "broker_url").read_text().strip()
    with pytest.raises(redis_client.AuthenticationError):
        redis_client.Redis.from_url(broker.replace(broker.split(":")[2].split("@")[0], "wrong")).ping()
    # No secret is in the environment of a process.
    values = [path.read_text().strip() for path in (host.folder / "secrets").iterdir() if path.is_file()]
    for process in (api, worker):
        environment = Path(f"/proc/{process.pid}/environ").read_text()
        assert not any(value in environment for value in values if len(value) > 10)
