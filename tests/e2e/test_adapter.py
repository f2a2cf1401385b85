"""The whole way over HTTP, and what a user does with the result: nothing of Tacit is needed to use an adapter."""

import hashlib
import json
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.settings import WorkerSettings
from tests.api.conftest import JOBS, World, make_keys, make_settings
from tests.conftest import Database
from tests.worker import tiny
from worker import attempt, results

HELD_OUT = [" ".join(text.split()[: 1 + i % 12]) for i, text in enumerate(tiny.rows(64, seed=9)[0])]

STOCK = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base_folder, adapter, texts = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
torch.manual_seed(0)
base = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=2).eval()
tokenizer = AutoTokenizer.from_pretrained(adapter)

def logits(model):
    out = []
    for text in texts:
        with torch.no_grad():
            out.append(model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0].tolist())
    return out

before = logits(base)
after = logits(PeftModel.from_pretrained(base, adapter).eval())
ours = [m for m in sys.modules if m.split(".")[0] in ("api", "worker", "dpcore", "ledger", "domain", "cli")]
print(json.dumps({"before": before, "after": after, "ours": ours}))
"""


@pytest.fixture
def world(database: Database, redis_server: str, tmp_path: Path) -> World:
    base = tmp_path / "base"
    base.mkdir()
    tiny.save_model(base)
    settings = make_settings(database, redis_server, tmp_path).model_copy(update={"models": {"tiny": base}})
    keys = make_keys(database, settings)
    with TestClient(create_app(settings)) as client:
        yield World(database, settings, client, keys)


def test_the_downloaded_adapter_is_the_model_that_was_trained(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = tiny.rows(400, seed=1)
    lines = [json.dumps({"text": t, "label": tiny.LABELS[k]}) for t, k in zip(texts, labels, strict=True)]
    form = {
        "purpose": "fine-tune",
        "privacy_budget[epsilon]": "8",
        "declared_size": "400",
        "labels": ",".join(tiny.LABELS),
        "max_length": "16",
    }
    uploaded = world.upload("\n".join(lines).encode(), form, name="rows.jsonl")
    assert uploaded.status_code == 201, uploaded.text
    options = {"r": 4, "hyperparameters": {"steps": 30, "batch_size": 100, "learning_rate": 0.05}}
    body = {"model": "tiny", "training_file": uploaded.json()["id"], "method": {"type": "lora", "lora": options}}
    job = world.post(JOBS, body).json()

    expected: dict[str, Any] = {}
    store_adapter = results.store_adapter

    def keep_logits(store: Any, lease: Any, assignment: Any, built: Any) -> Any:
        expected["logits"] = built.task.logits(built.model, HELD_OUT).tolist()
        return store_adapter(store, lease, assignment, built)

    monkeypatch.setattr(results, "store_adapter", keep_logits)
    settings = WorkerSettings(
        database_url=world.database.worker_url,
        broker_url=world.settings.broker_url,
        blobs=world.settings.blobs,
        models=world.settings.models,
    )
    engine = sa.create_engine(world.database.worker_url, poolclass=sa.NullPool)
    attempt.attempt(engine, settings, job["id"])

    done = world.get(f"{JOBS}/{job['id']}").json()
    assert (done["status"], done["progress"]["fraction"]) == ("succeeded", 1.0), done["error"]
    answer = world.get(f"{JOBS}/{job['id']}/adapter")
    assert answer.headers["x-content-sha256"] == hashlib.sha256(answer.content).hexdigest()
    adapter = tmp_path / "adapter"
    zipfile.ZipFile(BytesIO(answer.content)).extractall(adapter)
    (tmp_path / "texts.json").write_text(json.dumps(HELD_OUT))
    (tmp_path / "stock.py").write_text(STOCK)
    command = [sys.executable, "-I", "stock.py", str(tmp_path / "base"), str(adapter), "texts.json"]
    stock = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    seen = json.loads(stock.stdout)
    assert seen["ours"] == []
    differences = [
        abs(a - b) for x, y in zip(seen["after"], expected["logits"], strict=True) for a, b in zip(x, y, strict=True)
    ]
    assert len(differences) == 128
    assert max(differences) <= 1e-5
    moved = [abs(a - b) for x, y in zip(seen["after"], seen["before"], strict=True) for a, b in zip(x, y, strict=True)]
    assert min(max(moved[2 * i : 2 * i + 2]) for i in range(64)) > 1e-2
