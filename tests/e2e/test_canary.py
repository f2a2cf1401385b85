"""Disclosure: what only the rows, their columns and their file's name hold is found nowhere that it does not belong.

API and worker run as processes of their own, with their logs kept; uploads fail, jobs fail in the data phase, a worker
crashes. Then everything that an analyst is answered, and everything that is left on disk, in Redis and in Postgres, is
searched.
"""

import io
import json
import secrets
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from api.app import create_app
from domain.storage.sealing import MAGIC
from tests.api.attacks import Browser, Call, routes
from tests.api.conftest import JOBS, World, free_port, make_keys, make_settings, wait_for
from tests.api.test_files import environment
from tests.conftest import Database
from tests.worker import tiny
from tests.worker.forked import Forked

ROOT = Path(__file__).parents[2]
PATIENCE = 600
USERS = 40


def canary(name: str) -> str:
    return f"canary{name}{secrets.token_hex(6)}"


TEXT, LABEL, USER, COLUMN, NAME = (canary(name) for name in ("text", "label", "user", "column", "name"))
OF_ROWS = (TEXT, LABEL, USER)
ALL = (*OF_ROWS, COLUMN, NAME)
FORM = {
    "purpose": "fine-tune",
    "privacy_budget[epsilon]": "60",
    "privacy_budget[unit]": "user",
    "privacy_budget[max_records_per_user]": "2",
    "declared_size": str(USERS),
    "labels": ",".join(tiny.LABELS),
    "max_length": "16",
    "columns[text]": COLUMN,
    "columns[user]": f"{COLUMN}-who",
}


@dataclass
class House:
    """The service as processes, and everything that it was seen to say."""

    world: World
    folder: Path
    metrics: dict[str, int] = field(default_factory=dict)
    """Ports of the operator's metrics."""
    spans: list[bytes] = field(default_factory=list)
    """What the operator's collector was sent."""
    said: dict[str, bytes] = field(default_factory=dict)

    @property
    def how(self) -> Path:
        """The file that tells the worker how to break."""
        return self.folder / "how"

    def note(self, where: str, answer: httpx.Response) -> httpx.Response:
        """Keep an answer: head, body, and what is packed in it."""
        self.said[where] = str(answer.headers).encode() + answer.content
        if answer.content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
                for name in packed.namelist():
                    self.said[f"{where} {name}"] = name.encode() + packed.read(name)
        return answer

    def job(self, training_file: str, steps: int) -> str:
        options = {"r": 4, "hyperparameters": {"steps": steps, "batch_size": 10, "learning_rate": 0.05}}
        body = {"model": "tiny", "training_file": training_file, "method": {"type": "lora", "lora": options}}
        answer = self.note(f"job of {steps} steps", self.world.post(JOBS, body | {"privacy": {"epsilon": 5}}))
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        return id

    def status(self, job_id: str) -> str:
        status: str = self.world.get(f"{JOBS}/{job_id}").json()["status"]
        return status

    def wait(self, job_id: str, status: str) -> None:
        end = time.monotonic() + PATIENCE
        while (now := self.status(job_id)) != status:
            assert now in ("queued", "running"), (self.folder / "worker.log").read_text()[-3000:]
            assert time.monotonic() < end, f"{job_id} is {now}"
            time.sleep(0.2)


@contextmanager
def collector(kept: list[bytes]) -> Iterator[dict[str, str]]:
    """The setting that sends spans to something which keeps them as they came."""

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.append(str(self.headers).encode() + self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"TACIT_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()


def places(folder: Path, name: str) -> dict[str, str]:
    """A folder of its own for what a service leaves."""
    (folder / name / "tmp").mkdir(parents=True)
    return {"TMPDIR": str(folder / name / "tmp"), "BREAK": str(folder / "how"), "PLACE": str(folder / name)}


@contextmanager
def process(
    folder: Path, name: str, module: str, settings: dict[str, str], *words: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A service; killed at the end."""
    of_tests = places(folder, name) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=folder / name,
            env=settings | of_tests,
            stdout=log,
            stderr=log,
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@contextmanager
def forked_worker(folder: Path, settings: dict[str, str]) -> Iterator[None]:
    """The careless worker, whose pool starts a process for each attempt; killed at the end."""
    of_tests = places(folder, "worker") | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    started = Forked("tests.e2e.careless_worker", settings | of_tests, folder / "worker.log")
    try:
        yield
    finally:
        started.kill()
        started.wait(PATIENCE)


@pytest.fixture
def house(database: Database, redis_server: str, tmp_path: Path) -> Iterator[House]:
    model = tmp_path / "model"
    tiny.save_model(model)
    (tmp_path / "how").write_text("")
    broker = redis_server.replace("virtual_host=0", "virtual_host=9")
    settings = make_settings(database, broker, tmp_path)
    shared = environment(settings) | {"TACIT_MODELS": json.dumps({"tiny": str(model)})}
    of_worker = {k: v for k, v in shared.items() if k not in ("TACIT_KEY_PEPPER", "TACIT_FINGERPRINT_KEY")}
    of_worker |= {"TACIT_DATABASE_URL": database.worker_url, "TACIT_LEASE_SECONDS": "4", "TACIT_DEVICE": "cpu"}
    of_worker |= {"TACIT_RECONCILE_SECONDS": "0.5", "TACIT_PROFILE_AFTER": "0"}
    keys = make_keys(database, settings)
    port = free_port()
    metrics = {"api": free_port(), "worker": free_port()}
    of_metrics = {name: {"TACIT_METRICS_PORT": str(own)} for name, own in metrics.items()}
    spans: list[bytes] = []
    with (
        collector(spans) as sent,
        process(tmp_path, "api", "api", shared | of_metrics["api"] | sent, "--port", str(port)) as api,
        forked_worker(tmp_path, of_worker | of_metrics["worker"] | sent),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False) as client,
    ):
        wait_for(lambda: answers(client), api, PATIENCE)
        yield House(World(database, settings, client, keys), tmp_path, metrics, spans)  # type: ignore[arg-type]


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def rows() -> bytes:
    texts, labels = tiny.rows(2 * USERS, seed=3)
    lines = (
        {COLUMN: f"{text} {TEXT} {i}", "label": tiny.LABELS[label], f"{COLUMN}-who": f"{USER} {i % USERS}"}
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def spoilt() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Uploads that cannot be used: name of the file, content, and what else the form says."""
    record = {COLUMN: TEXT, "label": LABEL, f"{COLUMN}-who": USER}
    line = json.dumps(record).encode()
    table = io.BytesIO()
    pq.write_table(pa.table({COLUMN: [[TEXT]], "label": [LABEL], f"{COLUMN}-who": [USER]}), table)
    chat = json.dumps({"messages": [{"role": "tool", "content": TEXT}]}).encode()
    chat_form = {"columns[text]": "", "columns[user]": "", "task": "chat", "labels": ""}
    return {
        "label": (f"{NAME}.jsonl", rows() + line, {}),
        "json": (f"{NAME}.jsonl", rows() + line[:-1], {}),
        "user": (f"{NAME}.jsonl", rows() + json.dumps(record | {f"{COLUMN}-who": [USER]}).encode(), {}),
        "size": (f"{NAME}.jsonl", rows(), {"declared_size": "3"}),
        "column": (f"{NAME}.jsonl", rows(), {"columns[text]": "text"}),
        "csv": (f"{NAME}.csv", f'{COLUMN},label,{COLUMN}-who\n"{TEXT},{LABEL},{USER}\n'.encode(), {}),
        "parquet": (f"{NAME}.parquet", table.getvalue(), {}),
        "not parquet": (f"{NAME}.parquet", f"PAR1{TEXT}{LABEL}{USER}PAR1".encode(), {}),
        "chat": (f"{NAME}.jsonl", chat, chat_form),
        "ending": (f"{TEXT}.{NAME}", rows(), {}),
    }


def everything_an_analyst_can_ask(house: House, ids: dict[str, list[str]]) -> None:
    """Every route that only reads, with every id there is, over the API and the dashboard."""
    app = create_app(house.world.settings)
    browser = Browser(house.world, house.world.keys["one"]["analyst"])
    reading = [path for method, path, _ in routes(app) if method == "GET"]
    assert len(reading) > 20
    for path in reading:
        filled = [path]
        for name, values in ids.items():
            filled = [place.replace(f"{{{name}}}", value) for place in filled for value in values]
        for place in filled:
            if "{" not in place:
                house.note(place, browser.send(Call("GET", place)))
    assert sum(place.startswith("/dashboard/jobs/") for place in house.said) >= 4


def left_behind(house: House, redis_folder: Path) -> dict[str, bytes]:
    """Every file that the service wrote, what Redis wrote, every row in Postgres, and what the operator is told."""
    found = {str(path): path.read_bytes() for path in [house.folder / "api.log", house.folder / "worker.log"]}
    for name, port in house.metrics.items():
        found[f"metrics of {name}"] = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).content
    found["spans"] = b"".join(house.spans)
    found["audit"] = house.world.get("/v1/audit", "auditor", params={"limit": 100}).content
    places = [house.folder / "api", house.folder / "worker", house.folder / "blobs", redis_folder]
    for path in (path for place in places for path in place.rglob("*") if path.is_file()):
        found[str(path)] = str(path).encode() + path.read_bytes()
    with sa.create_engine(house.world.database.admin_url, poolclass=sa.NullPool).connect() as connection:
        tables = connection.execute(
            sa.text("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'ledger')")
        ).scalars()
        for table in tables.all():
            lines = connection.execute(sa.text(f"SELECT row_to_json(t)::text FROM {table} t")).scalars()
            found[f"table {table}"] = "\n".join(lines).encode()
    return found


def holders(found: dict[str, bytes], words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Where which of the words is, as it is or in hexadecimal, in any case."""
    return [
        (where, word)
        for where, content in found.items()
        for word in words
        if word.encode() in content.lower() or word.encode().hex().encode() in content.lower()
    ]


@pytest.mark.slow
def test_what_is_private_is_found_nowhere(house: House, short_folder: Path) -> None:
    world, blobs = house.world, house.folder / "blobs"
    for name, (filename, content, change) in spoilt().items():
        form = {k: v for k, v in (FORM | change).items() if v}
        answer = world.upload(content, form, filename)
        assert answer.status_code == 400, (name, answer.text)
        assert holders({name: answer.content}, OF_ROWS) == []

    made = world.upload(rows(), FORM, f"{NAME}.jsonl")
    assert made.status_code == 201, made.text
    file, budget = made.json()["id"], made.json()["budget"]
    assert made.json()["filename"] == f"{NAME}.jsonl"

    done = house.job(file, 10)
    house.wait(done, "succeeded")
    failed = []
    for steps, how in enumerate(("encode", "step"), start=11):
        house.how.write_text(how)
        failed.append(house.job(file, steps))
        house.wait(failed[-1], "failed")
    house.how.write_text("abort")
    crashed = house.job(file, 13)
    wait_for(lambda: b"SIGABRT" in (house.folder / "worker.log").read_bytes(), seconds=PATIENCE)
    house.how.write_text("")
    house.wait(crashed, "succeeded")

    stored = blobs / "files" / file / "rows.parquet"
    whole = stored.read_bytes()
    assert TEXT in world.get(f"/v1/files/{file}/content", "steward").text  # there is something to find
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    failed.append(house.job(file, 14))
    house.wait(failed[-1], "failed")

    jobs = [done, crashed, *failed]
    results = world.get(f"{JOBS}/{done}").json()["result_files"]
    ids = {"budget_id": [budget], "file_id": [file, *results], "job_id": jobs, "model_id": ["tiny"], "seq": ["1"]}
    everything_an_analyst_can_ask(house, ids)
    assert holders(house.said, ALL) == []
    errors = [world.get(f"{JOBS}/{job}").json()["error"] for job in failed]
    assert errors[0] == errors[1] == errors[2]  # what broke is not told apart

    found = left_behind(house, short_folder / "redis")
    assert b"tacit_http_requests_total" in found["metrics of api"]
    assert b"tacit_worker_busy" in found["metrics of worker"]
    for word in (b"POST /v1/files", b"rehearse", b"training_failed", done.encode()):
        assert word in found["spans"]
    assert not [key for key in house.world.keys["one"].values() if key.encode() in found["spans"]]
    assert b"GET /v1/files/{file_id}/content" in found["audit"]
    for place in ("api", "worker"):
        lines = (house.folder / f"{place}.log").read_bytes().splitlines()
        structured = [json.loads(line) for line in lines if line.startswith(b"{")]
        assert len(structured) > 5
        assert place == "worker" or len(structured) == len(lines)
        assert not [key for key in house.world.keys["one"].values() if key.encode() in b"".join(lines)]
    assert holders(found, ALL) == [("table public.file", NAME)]
    sealed = [path for path in blobs.rglob("*") if path.is_file()]
    assert stored in sealed
    assert all(path.read_bytes().startswith(MAGIC) for path in sealed)
    for place in ("api", "worker"):
        assert [path for path in (house.folder / place).rglob("*") if path.is_file()] == []  # no dump, no rest
    written = [path for path in blobs.rglob("*")]
    assert {oct(path.stat().st_mode & 0o777) for path in written} == {"0o600", "0o700"}

    assert world.call("DELETE", f"/v1/files/{file}", "steward").status_code == 200
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(whole)  # a backup of the blobs brings nothing back
    with world.engine("admin").connect() as connection:
        keys = connection.execute(sa.text("SELECT count(*) FROM data_key WHERE blob LIKE 'files/%'")).scalar_one()
    assert keys == 0
