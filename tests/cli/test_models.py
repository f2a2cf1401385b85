"""Base models of the hub: pinned, from the cache, weights that cannot run code; and what is measured about any model."""

import ast
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from fastapi.testclient import TestClient

from api.app import create_app
from domain.kit.settings import BadSettings, HubModel, ModelSettings, from_environment
from domain.models import hub
from domain.models.allow_list import TOYS, BaseModelFacts, base_models, describe
from dpcore.terms.methods import method_names
from tests.api.conftest import JOBS, World, make_keys, make_settings
from tests.conftest import Database
from tests.worker import tiny
from worker import profile

REVISION = "0123456789abcdef0123456789abcdef01234567"
MODEL = HubModel("owner/tiny", REVISION)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.save_model(folder)
    return folder


def cache(folder: Path, files: dict[str, bytes]) -> None:
    """A cache as huggingface_hub lays it out: blobs by their hash, a snapshot of links."""
    place = folder / "models--owner--tiny"
    snapshot, blobs = place / "snapshots" / REVISION, place / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name, content in files.items():
        blob = blobs / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_pinned_model_is_read_from_the_cache_and_nothing_else_is(hub_cache: Path, tiny_folder: Path) -> None:
    settings = ModelSettings(models={"own": f"hub:owner/tiny@{REVISION}"})
    assert "tacit models pull" in base_models(settings).unusable["own"].because
    cache(hub_cache, {path.name: path.read_bytes() for path in tiny_folder.iterdir()})
    found = base_models(settings).usable["own"]
    assert (found.source, found.revision) == (str(MODEL), describe("x", tiny_folder).revision)


@pytest.mark.parametrize("error", [KeyError("x"), OSError("the hub does not answer"), RuntimeError("odd")])
def test_a_hub_that_fails_at_the_start_takes_its_own_model_out_of_use(
    hub_cache: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(model: HubModel) -> Path:
        raise error

    monkeypatch.setattr(hub, "download", fail)
    sources = {"own": f"hub:owner/tiny@{REVISION}", "tiny": tiny_folder}
    found = base_models(ModelSettings(models=sources, hub_online=True))
    assert (set(found.usable) - {"minilm-l6", *TOYS}, set(found.unusable)) == ({"tiny"}, {"own"})


def test_weights_that_could_run_code_are_refused(hub_cache: Path, tiny_folder: Path) -> None:
    cache(hub_cache, {"config.json": (tiny_folder / "config.json").read_bytes(), "pytorch_model.bin": b"pickle"})
    with pytest.raises(ValueError, match=r"no weights as model\.safetensors; it has pytorch_model\.bin"):
        hub.cached(MODEL)


@pytest.mark.parametrize(
    "source", ["hub:owner/tiny", "hub:owner/tiny@main", "hub:owner/tiny@0123456", "hub:tiny@" + REVISION]
)
def test_a_revision_that_can_move_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACIT_MODELS", json.dumps({"own": source}))
    with pytest.raises(BadSettings, match=r"^TACIT_MODELS: own: .*(pinned revision|hub:owner/name@revision)"):
        from_environment(ModelSettings)


def test_a_setting_can_be_in_a_file_and_not_in_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").write_text(json.dumps({"own": str(tmp_path)}) + "\n")
    monkeypatch.setenv("TACIT_MODELS_FILE", str(tmp_path / "models"))
    assert from_environment(ModelSettings).models == {"own": tmp_path}
    monkeypatch.setenv("TACIT_MODELS", "{}")
    with pytest.raises(BadSettings, match="TACIT_MODELS and TACIT_MODELS_FILE are both set"):
        from_environment(ModelSettings)
    monkeypatch.delenv("TACIT_MODELS")
    monkeypatch.setenv("TACIT_MODELS_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(BadSettings, match=r"TACIT_MODELS_FILE: .* cannot be read"):
        from_environment(ModelSettings)


@pytest.fixture
def fake_hub(tiny_folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub with one repository: its address, and what was fetched from it."""
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    files |= {"modeling_tiny.py": b"import os", "pytorch_model.bin": b"pickle", "README.md": b"read me"}
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == f"/api/models/owner/tiny/tree/{REVISION}":
                listing = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
                return self.answer(json.dumps(listing).encode(), {"content-type": "application/json"})
            name = path.removeprefix(f"/owner/tiny/resolve/{REVISION}/")
            if name not in files:
                self.send_response(404)
                self.send_header("content-length", "0")
                return self.end_headers()
            if self.command == "GET":
                fetched.append(name)
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            self.answer(files[name], {"etag": etag, "x-repo-commit": REVISION})

        do_HEAD = do_GET

        def answer(self, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for key, value in (headers | {"content-length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", fetched
    server.shutdown()
    server.server_close()


def test_pull_fetches_weights_configuration_and_tokenizer_but_no_code(
    fake_hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, fetched = fake_hub
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TACIT_", "HF_"))} | {
        "TACIT_MODELS": json.dumps({"own": str(MODEL)}),
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",  # as the services have it: this command goes online all the same
        "NO_PROXY": "127.0.0.1",
    }

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    done = run("-m", "cli", "models", "pull")
    assert done.returncode == 0, done.stderr
    tokenizer = ["tokenizer.json", "tokenizer_config.json"]
    assert sorted(set(fetched)) == ["README.md", "config.json", "model.safetensors", *tokenizer]
    code = (
        "from domain.models.allow_list import base_models; from domain.kit.settings import *;"
        "print(base_models(from_environment(ModelSettings)).usable['own'].source)"
    )
    offline = run("-c", code)
    assert offline.stdout.strip() == str(MODEL), offline.stderr


@pytest.fixture
def world(database: Database, redis_server: str, tmp_path: Path, tiny_folder: Path) -> Iterator[World]:
    settings = make_settings(database, redis_server, tmp_path).model_copy(update={"models": {"tiny": tiny_folder}})
    keys = make_keys(database, settings)
    with TestClient(create_app(settings)) as client:
        yield World(database, settings, client, keys)


@pytest.mark.verify  # what is refused is in tests/api/test_models.py
def test_a_method_that_fails_when_tried_is_not_tried_again_until_the_libraries_change(
    world: World, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails, in a process of its own as the idle worker and the command do."""
    worker, model = world.engine("worker"), describe("tiny", tiny_folder)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    odd = {"tiny": replace(model, folder=tiny_folder.parent / "odd")}
    shutil.copytree(tiny_folder, odd["tiny"].folder)
    config = json.loads((tiny_folder / "config.json").read_text())
    (odd["tiny"].folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    monkeypatch.setattr(BaseModelFacts, "methods", lambda self, task: ("lora",))
    assert profile.profile_models(worker, odd, "cpu") == []
    (shown,) = [m for m in world.get("/v1/models").json()["data"] if m["id"] == "tiny"]
    (refused,) = shown["refused"]
    assert (refused["method"], refused["task"]) == ("lora", "classification")
    assert str(tiny_folder.parent) not in refused["because"]

    assert profile.worth_trying(worker, odd, "cpu", again=False) == []
    monkeypatch.setattr(profile, "versions", lambda: "torch 99")
    ((_, method, task),) = profile.worth_trying(worker, odd, "cpu", again=False)
    monkeypatch.setattr(profile, "_in_own_process", profile.measure)
    assert isinstance(profile.try_out(worker, model, method, task, "cpu", profile.TINY), profile.Measured)
    (shown,) = [m for m in world.get("/v1/models").json()["data"] if m["id"] == "tiny"]
    assert (shown["refused"], shown["profile"]) == ([], []), "what is tried alone is no measurement"


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error"), torch.AcceleratorError("lost")])
def test_what_this_machine_lacks_refuses_no_method(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(profile, "measure", fail)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    profile._send(theirs)
    assert ours.recv() is None


def test_all_that_tokenizers_read_is_pulled() -> None:
    """Of transformers as it is installed: a new kind of tokenizer shows here."""
    root = Path(find_spec("transformers").origin).parent  # type: ignore[union-attr, arg-type]
    named: set[str] = set()
    for source in root.rglob("*.py"):
        if "VOCAB_FILES_NAMES = " in (text := source.read_text(encoding="utf-8")):
            said = {
                ast.unparse(node.targets[0]): node.value
                for node in ast.parse(text).body
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Dict)
            }
            names = said["VOCAB_FILES_NAMES"]
            assert isinstance(names, ast.Dict)
            named |= {ast.literal_eval(said.get(ast.unparse(value), value)) for value in names.values}
    assert len(named) > 20
    assert named - set(hub.WANTED) == set()


def test_what_a_worker_measured_is_what_estimates_reckon_with(
    world: World, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = world.private_file(max_length="16")
    body = {"model": "tiny", "training_file": file["id"], "privacy": {"epsilon": 3}}
    assert world.post(f"{JOBS}/estimate", body, scope="admin").json()["seconds"] is None

    monkeypatch.setattr(profile, "_in_own_process", profile.measure)
    model = {"tiny": describe("tiny", tiny_folder)}
    monkeypatch.setattr("signal.signal", lambda *_: None)
    worker = world.engine("worker")
    made = profile.profile_models(worker, model, "cpu")
    usual = [m for m in made if not m.options]
    assert [m.method for m in usual] == [name for name in method_names() if name != "federated-lm"]  # it writes
    (large,) = [m for m in made if m.options]  # what the preset takes for a large file
    assert (large.method, large.options) == ("lora", {"r": 16, "target_modules": "all-linear"})
    assert all(m.tokens_per_second > 0 and m.peak_bytes > 10**6 for m in made)
    assert profile.profile_models(worker, model, "cpu") == []  # what is known is not measured again

    (shown,) = [m for m in world.get("/v1/models").json()["data"] if m["id"] == "tiny"]
    assert (shown["source"], shown["tasks"]) == ("folder", ["classification", "pair"])
    assert [(one["method"], one["options"]) for one in shown["profile"] if one["options"]] == [("lora", large.options)]
    assert {one["method"] for one in shown["profile"]} == {m.method for m in made}
    (lora,) = [m for m in usual if m.method == "lora"]
    for options, reckoned in (
        ({}, lora),
        ({"r": 2}, lora),  # at most: no less was measured
        ({"r": 9}, large),
        ({"r": 16, "target_modules": "all-linear"}, large),
        ({"r": 64, "target_modules": "all-linear"}, large),  # nothing as large was measured
    ):
        method = {"method": {"type": "lora", "lora": options}} if options else {}
        estimate = world.post(f"{JOBS}/estimate", body | method, scope="admin").json()
        numbers = estimate["method"]["lora"]["hyperparameters"]
        expected = numbers["steps"] * numbers["batch_size"] * 16 / reckoned.tokens_per_second
        assert estimate["seconds"] == pytest.approx(expected), options

    assert shown["refused"] == []
    api = world.engine("api")
    with api.begin() as connection, pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        profile.profiles.record(connection, model["tiny"], lora)
