"""The whole way over HTTP, and what a user does with the result: nothing of Tacit is needed to use an export."""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from fastapi.testclient import TestClient

from api.app import create_app
from domain.kit.settings import HubModel, WorkerSettings
from tests.api.conftest import JOBS, World, make_keys, make_settings
from tests.conftest import Database
from tests.outside import run_outside
from tests.worker import tiny
from worker import attempt, results

STOCK = Path(__file__).parents[1] / "stock.py"
READER = HubModel("owner/tiny", "0123456789abcdef0123456789abcdef01234567")
MAX_LENGTH = 16
HELD_OUT = [" ".join(text.split()[: 1 + i % 12]) for i, text in enumerate(tiny.rows(64, seed=9)[0])]


def folders_of(place: Path) -> dict[str, Path]:
    """Where the base models lie: one as the hub client keeps it, one in a folder."""
    commit = place / "hub" / "models--owner--tiny" / "snapshots" / READER.revision
    return {"reader": commit, "writer": place / "writer"}


@pytest.fixture
def world(database: Database, redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    folders = folders_of(tmp_path)
    for folder, save in zip(folders.values(), (tiny.save_model, tiny.save_writer), strict=True):
        folder.mkdir(parents=True)
        save(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    models = {"reader": READER, "writer": folders["writer"]}
    settings = make_settings(database, redis_server, tmp_path).model_copy(update={"models": models})
    keys = make_keys(database, settings)
    with TestClient(create_app(settings)) as client:
        yield World(database, settings, client, keys)


def records(model: str, count: int, seed: int) -> bytes:
    """Rows for a classifier, or the same as prompts and completions of two users' rows each."""
    texts, labels = tiny.rows(count, seed, mark=str(seed))
    rows = [(text, tiny.LABELS[label]) for text, label in zip(texts, labels, strict=True)]
    if model == "reader":
        return "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows).encode()
    lines = ({"prompt": text, "completion": label, "who": f"user {i // 2}"} for i, (text, label) in enumerate(rows))
    return "\n".join(json.dumps(line) for line in lines).encode()


def upload(world: World, model: str) -> tuple[str, str]:
    """A private file and a public one; the writer's has a budget for users."""
    form = {"purpose": "fine-tune", "privacy_budget[epsilon]": "8", "declared_size": "400", "max_length": "16"}
    public = {"purpose": "evals"}
    if model == "reader":
        form["labels"] = public["labels"] = ",".join(tiny.LABELS)
    else:
        public["task"] = "completion"
        form |= {
            "task": "completion",
            "columns[user]": "who",
            "privacy_budget[unit]": "user",
            "privacy_budget[max_records_per_user]": "2",
            "declared_size": "200",
        }
    ids = []
    # The public one first: rows like private ones would be a question to the steward.
    for fields, rows in ((public, records(model, 60, 2)), (form, records(model, 400, 1))):
        answer = world.upload(rows, fields, name="rows.jsonl")
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
    return ids[1], ids[0]


def logits(model: Any, tokenizer: Any) -> list[Any]:
    """Of each text alone."""
    out = []
    for text in HELD_OUT:
        ids = torch.tensor([tokenizer(text)["input_ids"][:MAX_LENGTH]])
        with torch.no_grad():
            out.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].tolist())
    return out


def exact_times(world: World, job: str, results: list[str]) -> list[str]:
    """Where an analyst is told of a time of the job's work to more than the minute. When it was asked for they know."""
    paths = [f"{JOBS}/{job}{more}" for more in ("", "/events", "/checkpoints", "/receipts", "/statement")]
    paths += [f"/v1/files/{file}" for file in results] + [
        f"/v1/models/{world.get(paths[0]).json()['fine_tuned_model']}"
    ]
    asked = world.get(paths[0]).json()["created_at"]
    since, found = asked - 1, []

    def look(where: str, value: Any) -> None:
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                look(f"{where}/{key}", inner)
        elif isinstance(value, str) and (time := re.search(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value)):
            look(where, datetime.fromisoformat(time[0]).timestamp())
        elif isinstance(value, int | float) and since <= value < since + 3600 and value % 60 and value != asked:
            found.append(where)

    for path in paths:
        answer = world.get(path)
        assert answer.status_code == 200, (path, answer.text)
        look(path, answer.json())
    return [
        where for where in found if where != f"{JOBS}/{job}/receipts/0/fields/10"
    ]  # the charge's, which is the request's


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("lora", "reader"),
        ("bitfit", "reader"),
        ("lora-fa", "writer"),
        ("full", "writer"),
        ("federated-lm", "writer"),
        ("side", "reader"),
        pytest.param("side", "writer", marks=pytest.mark.verify),
    ],
)
def test_what_is_downloaded_is_the_model_that_was_trained(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, model: str
) -> None:
    private, public = upload(world, model)
    numbers = {"steps": 8, "batch_size": 100, "learning_rate": 0.05}
    body = {
        "model": model,
        "training_file": private,
        "validation_file": public,
        "method": {"type": method, method: {"hyperparameters": numbers}},
    }
    submitted = world.post(JOBS, body)
    assert submitted.status_code == 201, submitted.text
    job = submitted.json()

    expected: dict[str, Any] = {}
    store_adapter = results.store_adapter

    def keep_logits(store: Any, lease: Any, assignment: Any, built: Any, report: Any) -> Any:
        expected["logits"] = logits(built.model, built.tokenizer)
        return store_adapter(store, lease, assignment, built, report)

    monkeypatch.setattr(results, "store_adapter", keep_logits)
    shared = {name: getattr(world.settings, name) for name in ("broker_url", "blobs", "models", "master_key")}
    settings = WorkerSettings(database_url=world.database.worker_url, **shared)
    engine = sa.create_engine(world.database.worker_url, poolclass=sa.NullPool)
    attempt.attempt(engine, settings, job["id"])

    done = world.get(f"{JOBS}/{job['id']}").json()
    assert (done["status"], done["progress"]["fraction"]) == ("succeeded", 1.0), done["error"]
    assert done["privacy"]["unit"] == ("record" if model == "reader" else "user")
    answer = world.get(f"{JOBS}/{job['id']}/adapter")
    assert answer.headers["x-content-sha256"] == hashlib.sha256(answer.content).hexdigest()
    export = tmp_path / "export"
    zipfile.ZipFile(BytesIO(answer.content)).extractall(export)
    labels = str(len(tiny.LABELS)) if model == "reader" else "0"
    base = folders_of(tmp_path)[model]
    arguments = (base, export, json.dumps(HELD_OUT), str(MAX_LENGTH), labels)
    seen = json.loads(run_outside(STOCK, *arguments, folder=tmp_path, cache=tmp_path / "hub"))
    assert seen["ours"] == []
    assert ("found" in seen) == ((method, model) == ("lora", "reader"))
    for read in (seen["logits"], seen.get("found", seen["logits"])):
        for ours, theirs in zip(expected["logits"], read, strict=True):
            torch.testing.assert_close(torch.tensor(theirs), torch.tensor(ours), rtol=0, atol=1e-5)

    assert exact_times(world, job["id"], done["result_files"]) == []
    (report_id,) = [f for f in done["result_files"] if f != done["result_files"][0]]
    report = world.get(f"/v1/files/{report_id}/content").json()
    card = (export / "README.md").read_text()
    assert f"epsilon {report['privacy']['epsilon_charged']:.6g}, delta {report['privacy']['delta']:g}" in card
    assert report["privacy"]["guarantee"] in card
    assert (READER.revision in card) == (model == "reader")
    metrics = report["metrics"]["validation"]
    if model == "reader":
        assert {metrics["accuracy"], metrics["untrained"]["accuracy"]} <= {i / 60 for i in range(61)}
    else:
        assert metrics["perplexity"] < 0.9 * metrics["untrained"]["perplexity"]
