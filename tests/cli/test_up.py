"""`tacit up` and `tacit down` on real servers, with the real worker and API."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.client import Client
from cli.embedded import lock, postgres, redis
from cli.embedded.processes import command_line, marked
from cli.embedded.services import MARK

PATIENCE = 90.0  # seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Tacit:
    """The command on one data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.running: list[subprocess.Popen[str]] = []

    def up(self, *, port: int | None = None) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "cli", "up", "--data", str(self.data), "--port", str(port or self.port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.running.append(process)
        return process

    def ready(self, process: "subprocess.Popen[str]") -> None:
        """Wait for the line that says so; the rest of its output stays in the pipe."""
        assert process.stdout is not None
        for line in process.stdout:
            if "Tacit runs on" in line:
                return
        raise AssertionError(f"ended with {process.wait()}")

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", (self.data / "secrets" / "admin-key").read_text())

    def down(self) -> "subprocess.CompletedProcess[str]":
        return self.run("down")

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Another command on the same folder."""
        command = [sys.executable, "-m", "cli", *words, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def services(self) -> dict[str, int]:
        """The pids of the API and of the worker, by name."""
        pids = sorted(marked(MARK, str(self.data)))
        lines = {pid: command_line(pid) for pid in pids}
        return {name: next(pid for pid, words in lines.items() if name in words) for name in ("api", "worker")}


@pytest.fixture
def tacit(tmp_path: Path) -> Iterator[Tacit]:
    made = Tacit(tmp_path / "data")
    yield made
    made.down() if made.data.exists() else None
    for process in made.running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_up_is_killed_comes_back_and_goes_down(tacit: Tacit) -> None:
    first = tacit.up()
    tacit.ready(first)
    budget = tacit.client().post("/v1/budgets", {"name": "kept", "epsilon": 3, "delta": 1e-6})

    examined = tacit.run("doctor", "--port", str(tacit.port), "--json")
    assert examined.returncode == 0, examined.stdout
    unwell = {finding["check"] for finding in json.loads(examined.stdout) if finding["word"] != "ok"}
    assert unwell <= {"disk", "witness"}  # the witness hears of a new budget within seconds
    requests = [line for line in tacit.run("logs", "api", "--lines", "100").stdout.splitlines() if '"request"' in line]
    assert json.loads(requests[-1].partition("|")[2])["route"] == "/v1/budgets"

    # Each service has its own login and not a secret more; none has the administrator's.
    secrets = json.loads((tacit.data / "secrets" / "stack.json").read_text())
    known = {
        "api": {"api_password", "key_pepper", "fingerprint_key", "signing_key"},
        "worker": {"worker_password"},
    }
    for name, pid in tacit.services().items():
        environment = Path(f"/proc/{pid}/environ").read_text()
        assert {secret for secret, value in secrets.items() if value in environment} == known[name]
    exposed = [path for path in tacit.data.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert exposed == []

    # A second one on the same folder says who has it.
    second = tacit.up(port=free_port())
    said, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert f"(pid {first.pid})" in said

    # Killed, it takes its services with it; the servers stay, and the next one adopts them.
    servers = postgres.live(tacit.data / "postgres"), redis.live(tacit.data / "redis")
    first.kill()
    first.wait()
    third = tacit.up()
    tacit.ready(third)
    after = postgres.live(tacit.data / "postgres"), redis.live(tacit.data / "redis")
    assert [server.process.pid for server in after] == [server.process.pid for server in servers]
    assert tacit.client().get(f"/v1/budgets/{budget['id']}")["epsilon"] == 3
    assert all(command_line(pid) for pid in tacit.services().values())

    # A service that dies is started again.
    api = tacit.services()["api"]
    os.kill(api, signal.SIGKILL)
    until(lambda: any("api" in command_line(pid) for pid in marked(MARK, str(tacit.data)) if pid != api))

    assert tacit.down().returncode == 0
    assert third.wait(PATIENCE) == 0
    assert list(marked(MARK, str(tacit.data))) == []
    assert postgres.live(tacit.data / "postgres") is None
    assert redis.live(tacit.data / "redis") is None
    assert lock.holder(tacit.data) is None


def test_a_taken_port_is_named_and_nothing_stays(tacit: Tacit) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", tacit.port))
        other.listen()
        process = tacit.up()
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"Port {tacit.port} on 127.0.0.1 is taken" in said
    assert "--port" in said
    assert postgres.live(tacit.data / "postgres") is None


def test_down_stops_what_a_killed_up_left(tacit: Tacit) -> None:
    process = tacit.up()
    until(lambda: postgres.live(tacit.data / "postgres") is not None)
    process.kill()
    process.wait()
    done = tacit.down()
    assert done.returncode == 0
    assert "database" in done.stdout
    assert postgres.live(tacit.data / "postgres") is None


def test_commands_start_without_torch() -> None:
    code = "import sys, cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
