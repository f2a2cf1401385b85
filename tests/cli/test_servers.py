"""The embedded servers: killed they recover, running they are adopted, missing they are named."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from cli.embedded import postgres, redis, secrets
from cli.embedded.errors import StackError
from cli.embedded.processes import command_line, marked


@pytest.mark.parametrize("mode", [0o711, 0o700], ids=["passable", "closed"])
def test_postgres_is_adopted_and_survives_kill(tmp_path: Path, mode: int) -> None:
    """Both ways in which root can run it (a closed parent needs the user namespace); for other users they are one."""
    folder = tmp_path / "data"
    folder.mkdir(mode=mode)

    def start() -> postgres.Postgres:
        return postgres.start(folder / "postgres", password="secret", log=tmp_path / "log")

    server = start()
    url = server.url(postgres.SUPERUSER, "secret", "postgres").replace("+psycopg", "")
    try:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        assert start().process.pid == server.process.pid
        os.kill(server.process.pid, signal.SIGKILL)
        assert server.process.wait(5)
        server = start()
        with psycopg.connect(url) as connection:  # the same URL: the socket is where it was
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url.replace("secret", "wrong"))
    finally:
        server.stop()
    assert postgres.live(folder / "postgres") is None
    assert not server.socket_folder.exists()


def test_redis_is_adopted_and_keeps_its_queue_over_kill(tmp_path: Path) -> None:
    server = redis.start(tmp_path / "redis", log=tmp_path / "log")
    try:
        with Redis(unix_socket_path=str(server.socket)) as client:
            client.config_set("appendfsync", "always")
            client.rpush("queue", "job")
        assert redis.start(tmp_path / "redis", log=tmp_path / "log").process.pid == server.process.pid
        os.kill(server.process.pid, signal.SIGKILL)
        assert server.process.wait(5)
        server = redis.start(tmp_path / "redis", log=tmp_path / "log")
        with Redis(unix_socket_path=str(server.socket)) as client:
            assert client.lrange("queue", 0, -1) == [b"job"]
    finally:
        server.stop()


def test_missing_servers_are_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"apt install postgresql"):
        postgres.start(tmp_path / "postgres", password="secret", log=tmp_path / "log")
    with pytest.raises(StackError, match=r"apt install redis-server"):
        redis.start(tmp_path / "redis", log=tmp_path / "log")


def test_a_folder_of_another_major_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(StackError, match="Install Postgres 14"):
        postgres.start(tmp_path / "postgres", password="secret", log=tmp_path / "log")


def test_marked_processes_are_found(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "30"], env={"MARK": str(tmp_path)})
    try:
        while command_line(child.pid)[:1] != ["sleep"]:  # the child may not yet be the new program
            time.sleep(0.01)
        assert list(marked("MARK", str(tmp_path))) == [child.pid]
    finally:
        child.kill()
        child.wait()


def test_secrets_are_made_once_and_an_older_folder_gets_what_it_lacks(tmp_path: Path) -> None:
    made = secrets.load(tmp_path)
    assert secrets.load(tmp_path) == made
    path = tmp_path / "secrets" / "stack.json"
    assert path.stat().st_mode & 0o777 == 0o600
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "fingerprint_key"}
    path.write_text(json.dumps(older))
    assert secrets.load(tmp_path) == secrets.load(tmp_path)
    (tmp_path / "postgres").mkdir()
    path.unlink()
    with pytest.raises(StackError, match="Restore the file"):
        secrets.load(tmp_path)
