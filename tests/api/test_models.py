"""The allow-list: a folder that cannot be used is out of use alone and says why, whenever it breaks."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.kit.tables import job
from domain.models import allow_list as models
from domain.models import profiles
from domain.models.allow_list import TOYS, base_models
from tests import folders
from tests.api.conftest import JOBS, World, job_body, make_keys, make_settings, wait_for
from tests.conftest import Database
from tests.dashboard.test_safety import sign_in


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return folders.make(tmp_path_factory.mktemp("models"))


@pytest.fixture
def world(database: Database, redis_server: str, tmp_path: Path, made: dict[str, Path]) -> Iterator[World]:
    settings = make_settings(database, redis_server, tmp_path).model_copy(update={"models": made})
    keys = make_keys(database, settings)
    with TestClient(create_app(settings), follow_redirects=False) as client:
        yield World(database, settings, client, keys)


def listed(world: World) -> dict[str, dict[str, Any]]:
    answer = world.get("/v1/models")
    assert answer.status_code == 200
    assert str(world.settings.models["tiny"].parent) not in answer.text, "nobody but the operator knows where they are"
    return {model["id"]: model for model in answer.json()["data"]}


def pages(world: World) -> dict[str, str]:
    """Cookies of a session."""
    return sign_in(world, world.keys["one"]["admin"])[0]


def test_broken_folders_are_out_of_use_alone_and_say_why(world: World) -> None:
    shown = listed(world)
    unusable = {name: model["unavailable_because"] for name, model in shown.items() if not model["available"]}
    assert set(unusable) == set(folders.SEEN)
    for name, (_, word) in folders.SEEN.items():
        assert word in unusable[name], name
        assert (shown[name]["object"], shown[name]["owned_by"], shown[name]["created"]) == ("model", "tacit", 0)
    assert set(shown) - set(unusable) >= {"minilm-l6", "tiny", "tied", *folders.LOADED, *folders.FINE}
    assert shown["small-writer"]["tasks"] == shown["tied"]["tasks"]
    assert shown["tied"]["tasks"] == ["classification", "pair", "completion", "text"]

    training = world.private_file(max_length="16")["id"]
    for name, (_, word) in folders.SEEN.items():
        refused = world.post(f"{JOBS}/estimate", job_body(training, model=name))
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_unavailable"), name
        assert refused.headers["x-should-retry"] == "false"
        assert word in refused.json()["detail"]
    for name in ("tiny", "tied", *folders.FINE):
        assert world.post(f"{JOBS}/estimate", job_body(training, model=name)).status_code == 200, name
    assert world.get("/v1/models/four-bit").json() == shown["four-bit"]


def test_a_folder_that_breaks_and_comes_back_changes_its_own_model(
    world: World, made: dict[str, Path], tmp_path: Path
) -> None:
    training = world.private_file(max_length="16")["id"]
    before = listed(world)
    weights = made["tiny"] / "model.safetensors"
    kept = shutil.copy2(weights, tmp_path / "kept")

    os.truncate(weights, 30_000)
    broken = world.post(JOBS, job_body(training, model="tiny"))
    assert (broken.status_code, broken.json()["error"]["code"]) == (409, "model_unavailable")
    assert "cut off" in listed(world)["tiny"]["unavailable_because"]
    assert {n: m for n, m in listed(world).items() if n != "tiny"} == {n: m for n, m in before.items() if n != "tiny"}

    shutil.copy2(kept, weights)
    made_now = world.post(JOBS, job_body(training, model="tiny"))
    assert made_now.status_code == 201
    assert listed(world) == before
    with world.engine("worker").connect() as connection:
        row = connection.execute(sa.select(job).where(job.c.id == made_now.json()["id"])).one()
    assert f"sha256:{row.model_revision}" == before["tiny"]["revision"], "which its worker holds it to"

    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")  # other weights: hashed, but not while a caller waits
    assert "being read" in (listed(world)["tiny"]["unavailable_because"] or "being read")
    wait_for(lambda: listed(world)["tiny"]["available"])
    assert listed(world)["tiny"]["revision"] != before["tiny"]["revision"]
    shutil.copy2(kept, weights)


def test_new_weights_are_not_hashed_while_a_caller_waits(
    world: World, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    hashes = models._sha256

    def watched(path: Path) -> str:
        if models._key(path) not in models._digests:
            asked.append(threading.current_thread().name)
        return hashes(path)

    monkeypatch.setattr(models, "_sha256", watched)
    listed(world)
    assert asked == []
    weights = made["tied"] / "model.safetensors"
    os.utime(weights, (1, 1))
    wait_for(lambda: listed(world)["tied"]["available"] and bool(asked))
    assert asked == ["models"]


def test_a_method_that_failed_when_tried_is_not_offered_and_refused_before_it_costs_anything(world: World) -> None:
    training = world.private_file(max_length="16")["id"]
    model = base_models(world.settings).usable["tiny"]
    why = "no per-example gradient for trainable parameters: <b>gate</b>"

    def tried(refusal: str | None) -> None:
        with world.engine("worker").begin() as connection:
            profiles.record_trial(connection, model, "lora", "pair", refusal, "torch 2")

    assert "lora" in listed(world)["tiny"]["methods"]
    tried(why)
    shown = listed(world)["tiny"]
    assert "lora" not in shown["methods"]
    assert [(one["method"], one["task"], one["because"]) for one in shown["refused"]] == [
        ("lora", "classification", why)
    ]
    assert "lora" in listed(world)["minilm-l6"]["methods"], "another model is not concerned"
    plain = job_body(training, model="tiny", method={"type": "lora"})
    for path in (JOBS, f"{JOBS}/estimate"):
        refused = world.post(path, plain)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_method")
        assert why in refused.json()["detail"]
    other = plain | {"method": {"type": "lora", "lora": {"target_modules": ["query"]}}}
    assert world.post(f"{JOBS}/estimate", other).status_code == 200, "other options were not tried"
    cookies = pages(world)
    page = world.client.get("/dashboard/models", cookies=cookies).text
    assert "no per-example gradient for trainable parameters: &lt;b&gt;gate" in page
    tried(None)
    assert "lora" in listed(world)["tiny"]["methods"]
    assert world.post(JOBS, plain).status_code == 201


def test_the_page_shows_each_with_its_reason(world: World) -> None:
    page = world.client.get("/dashboard/models", cookies=pages(world)).text
    for name, (_, word) in folders.SEEN.items():
        assert f'id="m-{name}"' in page
        assert word[1:] in page, name
    assert str(world.settings.models["tiny"].parent) not in page


def test_a_service_without_any_model_starts_and_says_so(database: Database, redis_server: str, tmp_path: Path) -> None:
    settings = make_settings(database, redis_server, tmp_path).model_copy(
        update={"models": dict.fromkeys(("minilm-l6", *TOYS), tmp_path / "nowhere")}
    )
    with TestClient(create_app(settings), follow_redirects=False) as client:
        world = World(database, settings, client, make_keys(database, settings))
        shown = {m["id"]: m["available"] for m in world.get("/v1/models").json()["data"]}
        assert shown == dict.fromkeys(("minilm-l6", *TOYS), False)
        assert client.get("/readyz").json()["checks"]["models"] == "warning"
        refused = world.upload()
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_unavailable")
        assert client.get("/dashboard/estimate", cookies=pages(world)).status_code == 200
