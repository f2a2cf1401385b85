"""Files: what is stored, who sees what of it, and what is left when an upload goes wrong."""

import http.client
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.files import scratch
from domain.kit.settings import ApiSettings
from domain.kit.tables import file
from domain.storage.blobs import open_store
from dpcore.terms.tasks import KINDS, get_kind
from tests.api.conftest import CSV, JOBS, PRIVATE, ROWS, World, free_port, wait_for
from tests.conftest import MASTER_KEY
from tests.sample_rows import row_of

CANARY = "canary-51c0"
USER = {"privacy_budget[unit]": "user", "privacy_budget[max_records_per_user]": "2", "columns[user]": "who"}


def left_over(world: World) -> list[Path]:
    return list(Path(world.settings.blobs, "uploads").iterdir())


def blobs_of(world: World, file_id: str) -> list[Path]:
    return [p for p in Path(world.settings.blobs, "files", file_id).rglob("*") if p.is_file()]


def test_a_private_file_is_bound_to_its_budget_and_seen_whole_by_its_steward_alone(world: World) -> None:
    made = world.upload(CSV, PRIVATE | {"max_length": "32"}, f"{CANARY}.csv").json()
    path = f"/v1/files/{made['id']}"
    assert made["status"] == "processed"
    assert (made["bytes"], made["filename"], made["declared_size"]) == (len(CSV), f"{CANARY}.csv", ROWS)
    budget = world.get(f"/v1/budgets/{made['budget']}").json()
    assert (budget["epsilon"], budget["delta"]) == (8, 1e-4)  # the default: at most 1 / (10 x 400)
    assert (budget["reference"]["steps"], budget["reference"]["sample_rate"]) == (60, 0.25)
    seen = world.get(path).json()
    assert (seen["bytes"], seen["sha256"], seen["filename"]) == (0, None, made["id"])
    for public in (path, "/v1/files", f"/v1/budgets/{made['budget']}"):
        assert CANARY not in world.get(public).text
    assert world.get(f"{path}/content").status_code == 403
    rows = world.get(f"{path}/content", "steward").text.splitlines()
    assert (len(rows), rows[1]) == (ROWS, '{"text": "row number 1", "label": "1"}')
    assert [oct(p.stat().st_mode & 0o777) for p in blobs_of(world, made["id"])] == ["0o600"]
    assert left_over(world) == []


def test_evaluation_sets_are_public(world: World) -> None:
    made = world.upload(b"text,label\na,x\na,x\nb,y\n", {"purpose": "evals"}).json()
    assert (made["budget"], made["declared_size"], made["labels"]) == (None, 3, ["x", "y"])
    assert world.get(f"/v1/files/{made['id']}/content").text.count("\n") == 3
    assert made["id"] in world.get("/v1/files", params={"purpose": "evals"}).text
    assert made["id"] not in world.get("/v1/files", params={"purpose": "fine-tune"}).text


@pytest.mark.parametrize("task", [task for task, kind in KINDS.items() if not kind.of_pictures])
@pytest.mark.parametrize("purpose", ["fine-tune", "evals"])
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_files_of_every_task(world: World, quick_checks: None, task: str, purpose: str, format: str) -> None:
    """The task is told by the name of a column where one tells it."""
    kind, kept = get_kind(task), row_of(task, f"of {purpose} as {format}", 1)
    own = {name: f"own {name}" for name in kind.tells[:1]}
    form = {f"columns[{name}]": theirs for name, theirs in own.items()} or {"task": task}
    row = {own.get(name, name): value for name, value in kept.items()}
    base = {k: v for k, v in PRIVATE.items() if k != "labels"} if purpose == "fine-tune" else {"purpose": purpose}
    labels = {"labels": "0,1"} if kind.labelled else {}
    content = io.BytesIO(json.dumps(row).encode())
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), content)
    answer = world.upload(content.getvalue(), base | form | labels, f"rows.{format}")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["task"], made["labels"]) == (task, ["0", "1"] if kind.labelled else None)
    assert world.get(f"/v1/files/{made['id']}").json()["task"] == task
    said = kept | ({"label": "1"} if kind.labelled else {})
    assert world.get(f"/v1/files/{made['id']}/content", "steward").json() == said


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(world: World, quick_checks: None) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", CANARY], "label": [0, 7]}), content)
    answer = world.upload(content.getvalue(), PRIVATE, "rows.parquet")
    assert answer.status_code == 400
    assert "row 2: 'label' is not one of the public labels" in answer.json()["detail"]
    assert CANARY not in answer.text


def test_count_publishes_the_number_of_units(world: World) -> None:
    made = world.upload(CSV + CSV.partition(b"\n")[2], PRIVATE | {"declared_size": "count"}).json()
    assert made["declared_size"] == ROWS


def test_problems_go_to_the_steward_by_line_and_nothing_is_kept(world: World) -> None:
    with world.engine("admin").connect() as connection:
        before = connection.execute(sa.text("SELECT count(*) FROM ledger.budget")).scalar_one()
        answer = world.upload(CSV + f"{CANARY},2\n".encode())
        assert answer.status_code == 400
        assert answer.json()["errors"] == [
            {
                "line": ROWS + 2,
                "code": "label_not_public",
                "message": "'label' is not one of the public labels: name it in labels, or leave it out",
            }
        ]
        assert CANARY not in answer.text
        assert connection.execute(sa.text("SELECT count(*) FROM ledger.budget")).scalar_one() == before
    assert left_over(world) == []


@pytest.mark.parametrize(
    ("change", "name", "code", "param"),
    [
        ({"purpose": "train"}, "a.csv", "invalid_request", "purpose"),
        ({}, "a.parquet", "invalid_file", "file"),
        ({}, "a.xlsx", "invalid_request", "file"),
        ({"privacy_budget[epsilon]": "nan"}, "a.csv", "invalid_request", "privacy_budget.epsilon"),
        ({"privacy_budget[epsilon]": "0"}, "a.csv", "invalid_request", "privacy_budget.epsilon"),
        ({"privacy_budget[epsilon]": "0.001"}, "a.csv", "epsilon_too_small", "epsilon"),
        ({"privacy_budget[delta]": "0.0025"}, "a.csv", "delta_too_large", "delta"),
        ({"privacy_budget[unit]": "user"}, "a.csv", "invalid_request", "privacy_budget.max_records_per_user"),
        ({"privacy_budget[max_records_per_user]": "2"}, "a.csv", "invalid_request", None),
        ({**USER, "privacy_budget[max_records_per_user]": "0"}, "a.csv", "invalid_request", None),
        ({**USER, "columns[user]": None}, "a.csv", "invalid_request", "columns.user"),
        ({"declared_size": "0"}, "a.csv", "invalid_request", "declared_size"),
        ({"declared_size": "399"}, "a.csv", "invalid_file", "file"),
        ({"labels": "0"}, "a.csv", "invalid_request", "labels"),
        ({"labels": "0,0"}, "a.csv", "invalid_request", "labels"),
        ({"labels": '["0", '}, "a.csv", "invalid_request", "labels"),
        ({"labels": "0,\x00"}, "a.csv", "invalid_request", None),
        ({"max_length": "1"}, "a.csv", "invalid_request", "max_length"),
        ({"columns[text]": "sentence"}, "a.csv", "invalid_file", "file"),
        ({"columns[user]": "who"}, "a.csv", "invalid_file", "file"),
        ({"overlap": "different_population"}, "a.csv", "invalid_request", "overlap_reason"),
        ({"overlap_reason": "why not"}, "a.csv", "invalid_request", "overlap_reason"),
        ({"overlap": "different_population", "overlap_reason": " "}, "a.csv", "invalid_request", "overlap_reason"),
        ({"budget": "budget-1"}, "a.csv", "invalid_request", "budget"),
        ({"task": "summarise"}, "a.csv", "invalid_request", "task"),
        ({"task": "pair", "columns[prompt]": "q"}, "a.csv", "invalid_request", "columns.prompt"),
        ({"task": "chat"}, "a.csv", "invalid_request", "labels"),
        ({"columns[messages]": "turns"}, "a.csv", "invalid_request", "labels"),
        ({"labels": None}, "a.csv", "invalid_request", "labels"),
        ({"status": "processed"}, "a.csv", "invalid_request", "status"),
    ],
)
def test_bad_forms_are_refused(world: World, change: dict, name: str, code: str, param: str | None) -> None:
    answer = world.upload(None, PRIVATE | change, name)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == code, answer.text
    assert param is None or error["param"] == param, answer.text
    assert left_over(world) == []


def test_a_file_needs_a_budget_with_a_small_enough_delta(world: World) -> None:
    budget = world.post("/v1/budgets", {"name": "b", "epsilon": 8, "delta": 0.0025}, "steward").json()["id"]
    form = {k: v for k, v in PRIVATE.items() if "[" not in k}
    answer = world.upload(CSV, form | {"budget": budget})
    assert answer.json()["error"]["code"] == "delta_too_large"
    assert world.upload(CSV, form | {"budget": budget, "declared_size": "count"}).status_code == 400
    answer = world.upload(CSV, form)
    assert "belongs to one budget" in answer.json()["detail"]


def test_bodies_over_the_limit_are_refused(world: World) -> None:
    limit = world.settings.upload_limit
    assert world.upload(b"x" * (limit + 1)).status_code == 413  # by the file's own size
    assert world.upload(b"x" * (4 * limit)).status_code == 413  # by its declared length
    pieces = (b"x" * 2**16 for _ in range(100))  # chunked: no declared length
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = world.call("POST", "/v1/files", "steward", content=pieces, headers=headers)
    assert answer.status_code in (400, 413)
    assert left_over(world) == []


@pytest.mark.parametrize(
    "body", [b"", b"--b", b"--b\r\n\r\nx", b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nx']
)
def test_a_form_that_is_cut_off_is_refused(world: World, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = world.call("POST", "/v1/files", "steward", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_form")


def test_deletion_destroys_the_rows_and_keeps_the_ledger(world: World) -> None:
    made = world.private_file()
    job = world.submit(made["id"])
    path = f"/v1/files/{made['id']}"
    refused = world.call("DELETE", path, "steward")
    assert (refused.status_code, refused.json()["jobs"]) == (409, [job["id"]])
    world.post(f"{JOBS}/{job['id']}/cancel")
    assert world.call("DELETE", path, "steward").json() == {"id": made["id"], "object": "file", "deleted": True}
    assert blobs_of(world, made["id"]) == []
    assert [world.get(p).status_code for p in (path, f"{path}/content")] == [404, 404]
    assert world.post(JOBS, {"model": "minilm-l6", "training_file": made["id"]}).status_code == 404
    entries = world.get(f"/v1/budgets/{made['budget']}/entries", "auditor").json()["data"]
    assert [e["kind"] for e in entries] == ["open", "records", "grant", "reserve", "settle"]


def test_an_api_killed_in_mid_upload_leaves_nothing_behind(world: World, tmp_path: Path) -> None:
    """The bytes that had arrived are gone after the next start, and no row tells of them."""
    settings = world.settings.model_copy(update={"blobs": str(tmp_path / "blobs")})
    parts = tmp_path / "blobs" / "uploads"
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "api", "--port", str(port)], env=environment(settings))
    try:
        wait_for(lambda: answers(port), process)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.putrequest("POST", "/v1/files")
        connection.putheader("authorization", f"Bearer {world.keys['one']['steward']}")
        connection.putheader("content-type", "multipart/form-data; boundary=b")
        connection.putheader("content-length", "100000")
        connection.endheaders()
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        connection.send(head + b"text,label\n" + CANARY.encode() * 1000)
        wait_for(lambda: parts.exists() and any(parts.iterdir()), process)
    finally:
        process.kill()
        process.wait()
    assert len(list(parts.iterdir())) == 1
    with TestClient(create_app(settings)), world.engine("admin").connect() as connection:
        assert list(parts.iterdir()) == []
        unfinished = sa.select(sa.func.count()).where(file.c.status != "processed")
        assert connection.execute(unfinished).scalar_one() == 0


def test_a_start_leaves_the_uploads_of_others_alone(world: World) -> None:
    store = open_store(world.settings, world.engine("api"))
    with scratch.part(store, "file-0") as part:
        assert scratch.sweep(store) == []
        assert part.path.exists()


def environment(settings: ApiSettings) -> dict[str, str]:
    """What `python -m api` reads these settings from."""
    machine = {k: v for k, v in os.environ.items() if not k.startswith("TACIT_")}
    return machine | {
        "TACIT_DATABASE_URL": settings.database_url.get_secret_value(),
        "TACIT_BROKER_URL": settings.broker_url.get_secret_value(),
        "TACIT_BLOBS": settings.blobs,
        "TACIT_MASTER_KEY": MASTER_KEY,
        "TACIT_KEY_PEPPER": settings.key_pepper.get_secret_value(),
        "TACIT_FINGERPRINT_KEY": settings.fingerprint_key.get_secret_value(),
        "TACIT_SIGNING_KEY": settings.signing_key.get_secret_value(),
        "TACIT_RATE_LIMIT": "0",
    }


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
