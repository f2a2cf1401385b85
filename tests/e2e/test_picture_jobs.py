"""A job on pictures, from the upload to what leaves, with units held out and a private measurement on them."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.kit.settings import WorkerSettings
from tests.api.conftest import JOBS, World, make_keys, make_settings
from tests.conftest import Database
from tests.made_pictures import archive
from worker.attempt import attempt

MODEL = "small-seer"


@pytest.fixture
def world(database: Database, redis_server: str, tmp_path: Path) -> Iterator[World]:
    settings = make_settings(database, redis_server, tmp_path)
    keys = make_keys(database, settings)
    with TestClient(create_app(settings)) as client:
        yield World(database, settings, client, keys)


def put(world: World, pictures: range, **form: str) -> dict[str, Any]:
    answer = world.upload(archive(pictures), form, name="scans.zip")
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


@pytest.mark.parametrize("views", [pytest.param(1, marks=pytest.mark.verify), 2])
def test_pictures_are_learnt_measured_on_what_is_held_out_and_taken_home(world: World, views: int) -> None:
    public = put(world, range(1000, 1012), purpose="evals")
    held = {"privacy_budget[epsilon]": "8", "privacy_budget[held_out]": "0.4", "labels": "publish"}
    private = put(world, range(40), purpose="fine-tune", declared_size="200", **held)
    numbers = {"steps": 4, "batch_size": 20, "learning_rate": 0.01, "views": views}
    body = {"model": MODEL, "training_file": private["id"], "validation_file": public["id"]}
    body |= {"method": {"type": "lora", "lora": {"r": 2, "hyperparameters": numbers}}, "measure": {"share": 0.4}}
    submitted = world.post(JOBS, body | {"privacy": {"share": 0.9}})
    assert submitted.status_code == 201, submitted.text
    job = submitted.json()

    shared = {name: getattr(world.settings, name) for name in ("broker_url", "blobs", "models", "master_key")}
    settings = WorkerSettings(database_url=world.database.worker_url, **shared)
    attempt(sa.create_engine(world.database.worker_url, poolclass=sa.NullPool), settings, job["id"])

    done = world.get(f"{JOBS}/{job['id']}").json()
    assert done["status"] == "succeeded", done["error"]
    assert (done["quality"]["metric"], done["quality"]["file"]) == ("accuracy", public["id"])
    told = done["quality"]["private"]
    assert told["metric"] == "accuracy"
    assert told["standard_error"] > 0
    assert [phase["name"] for phase in done["privacy"]["phases"]] == ["train", "measure"]
    archived = zipfile.ZipFile(io.BytesIO(world.get(f"{JOBS}/{job['id']}/adapter").content))
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(archived.namelist())
    assert json.loads(archived.read("adapter_config.json"))["r"] == 2
