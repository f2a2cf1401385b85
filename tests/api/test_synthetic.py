"""Sampled text as it is asked for: refused by field where it cannot be, a part of what the job is, and public."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from api.dashboard.jobs import request_of
from api.jobs.idempotency import _digest
from api.jobs.schemas import Job, NewJob
from domain.jobs.releases import Result, publish
from domain.storage.blobs import open_store, put_bytes
from dpcore.terms.synthetic import Synthetic
from ledger import work
from tests.api.conftest import JOBS, World, make_keys, make_settings
from tests.conftest import Database
from tests.worker import tiny

pytestmark = pytest.mark.usefixtures("quick_checks")
PROMPTS = ["the old apple", {"prompt": "iron", "weight": 3}]
DIGEST = "6c245df68a08e8223a946d53e4c0cc907c60c0f83ecb94baebf5fa87f21e947c"
NOTE = "the patient was seen again on the third of May and sent home with nothing"


@pytest.fixture(scope="module")
def world(module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    tiny.save_writer(folder / "writer")
    tiny.save_model(folder / "reader")
    models = {"writer": folder / "writer", "reader": folder / "reader"}
    settings = make_settings(module_database, redis_server, folder).model_copy(update={"models": models})
    keys = make_keys(module_database, settings)
    with TestClient(create_app(settings)) as client:
        yield World(module_database, settings, client, keys)


@pytest.fixture(scope="module")
def files(world: World) -> dict[str, dict[str, Any]]:
    """A private file of each task, each under a budget of its own."""
    rows = {
        "text": [{"text": f"{NOTE}, text {i}"} for i in range(60)],
        "completion": [{"prompt": f"ask {i} of a kind", "completion": f"answer {i} to that"} for i in range(60)],
        "classification": [{"text": f"a row of its own, {i}", "label": str(i % 2)} for i in range(60)],
    }
    made = {}
    for task, lines in rows.items():
        form = {"purpose": "fine-tune", "task": task, "privacy_budget[epsilon]": "8", "declared_size": "60"}
        form |= {"labels": "0,1"} if task == "classification" else {}
        answer = world.upload("\n".join(map(json.dumps, lines)).encode(), form, name="rows.jsonl")
        assert answer.status_code == 201, answer.text
        made[task] = answer.json()
    return made


def body(file: dict[str, Any], synthetic: Any, **more: Any) -> dict[str, Any]:
    numbers = {"hyperparameters": {"steps": 20, "batch_size": 10}}
    method = {"type": "lora", "lora": {"r": 4} | numbers}
    asked = {"model": "writer", "training_file": file["id"], "method": method, "privacy": {"epsilon": 1.0}}
    return asked | ({} if synthetic is None else {"synthetic": synthetic}) | more


REFUSED: list[tuple[str, Any, str]] = [
    ("text", {"records": 0}, "synthetic.records"),
    ("text", {"records": 10_001}, "synthetic.records"),
    ("text", {}, "synthetic.records"),
    ("text", {"records": 10, "max_new_tokens": 32}, "synthetic.max_new_tokens"),  # all positions that there are
    ("text", {"records": 10, "temperature": 2.5}, "synthetic.temperature"),
    ("text", {"records": 10, "top_p": 0}, "synthetic.top_p"),
    ("text", {"records": 10, "prompts": []}, "synthetic.prompts"),
    ("text", {"records": 10, "prompts": ["  "]}, "synthetic.prompts"),
    ("text", {"records": 10, "prompts": [{"prompt": "a", "weight": 0}]}, "synthetic.prompts.weight"),
    (
        "text",
        {"records": 10, "max_new_tokens": 8, "prompts": [{"messages": [{"role": "user", "content": "a"}]}]},
        "synthetic.prompts",
    ),
    ("text", {"records": 10, "max_new_tokens": 8, "prompts": ["a" * 70_000]}, "synthetic.prompts"),
    ("text", {"records": 10_000, "max_new_tokens": 8, "prompts": ["a" * 10_000]}, "synthetic.prompts"),
    ("text", {"records": 10, "prompt_file": "file-1"}, "synthetic.prompt_file"),
    ("completion", {"records": 10, "max_new_tokens": 8}, "synthetic.prompts"),
    ("classification", {"records": 10, "max_new_tokens": 8}, "synthetic"),
]


@pytest.mark.parametrize(("task", "synthetic", "field"), REFUSED)
def test_what_cannot_be_sampled_is_refused_by_field(
    world: World, files: dict[str, dict[str, Any]], task: str, synthetic: Any, field: str
) -> None:
    model = "reader" if task == "classification" else "writer"
    for path in (JOBS, f"{JOBS}/estimate"):
        answer = world.post(path, body(files[task], synthetic, model=model))
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == field


def test_more_tokens_than_a_job_may_sample_are_refused(
    world: World, files: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.jobs.synthetic.MOST_TOKENS", 79)
    answer = world.post(JOBS, body(files["text"], {"records": 10, "max_new_tokens": 8}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "synthetic.records")


def test_it_is_a_part_of_the_job_and_costs_nothing(world: World, files: dict[str, dict[str, Any]]) -> None:
    asked = {"records": 10, "max_new_tokens": 8, "prompts": PROMPTS, "top_p": 0.95}
    plain = world.post(f"{JOBS}/estimate", body(files["text"], None)).json()
    estimate = world.post(f"{JOBS}/estimate", body(files["text"], asked)).json()
    assert estimate["privacy"] == plain["privacy"]
    assert (plain["synthetic_tokens"], estimate["synthetic_tokens"]) == (None, 80)
    made = world.post(JOBS, body(files["text"], asked)).json()
    shown = world.get(f"{JOBS}/{made['id']}").json()["synthetic"]
    assert [(p["prompt"], p["weight"]) for p in shown["prompts"]] == [("the old apple", 1.0), ("iron", 3.0)]
    assert (shown["records"], shown["temperature"], shown["top_p"], shown["seed"]) == (10, 1.0, 0.95, 0)
    assert NewJob.model_validate(request_of(Job.model_validate(made))).synthetic == Synthetic.model_validate(asked)
    # Asked again it is that job, and with another prompt another one.
    assert world.post(JOBS, body(files["text"], asked)).json()["id"] == made["id"]
    other = world.post(JOBS, body(files["text"], asked | {"prompts": ["zinc"]})).json()
    assert other["id"] != made["id"]
    for id in (made["id"], other["id"]):
        assert world.post(f"{JOBS}/{id}/cancel").status_code == 200


def test_a_request_without_it_has_the_digest_that_it_always_had() -> None:
    before = {"model": "m", "training_file": "file-1", "privacy": {"epsilon": 1.0}, "seed": 3}
    assert _digest(NewJob.model_validate(before)).hex() == DIGEST
    assert _digest(NewJob.model_validate(before | {"synthetic": {"records": 1}})).hex() != DIGEST


def released(world: World, id: str, at_work: sa.Connection, kinds: dict[str, tuple[str, bytes]]) -> dict[str, str]:
    """What a worker does, without the training: the ids of the results, in their order."""
    store = open_store(world.settings, world.engine("api"))
    results = [
        Result(kind, name, len(data), hashlib.sha256(data).hexdigest(), put_bytes(store, f"results/{id}/{name}", data))
        for kind, (name, data) in kinds.items()
    ]
    lease = work.claim(at_work, id, "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, 20)
    publish(at_work, lease, "tenant_one", results)
    at_work.commit()
    return dict(zip(kinds, world.get(f"{JOBS}/{id}").json()["result_files"], strict=True))


def test_the_file_is_one_more_result_and_may_come_back_as_a_public_one(
    world: World, files: dict[str, dict[str, Any]], at_work: sa.Connection
) -> None:
    asked = {"records": 3, "max_new_tokens": 8}
    id = world.post(JOBS, body(files["text"], asked)).json()["id"]
    lines = [f"{NOTE}, text 7", f"{NOTE}, somewhere else", "the old apple"]  # one is a private row, word for word
    data = "".join(json.dumps({"text": line}) + "\n" for line in lines).encode()
    kinds = {"adapter": ("adapter.zip", b"a"), "report": ("privacy_report.json", b"{}")}
    kinds |= {"synthetic": ("synthetic.jsonl", data), "synthetic_card": ("synthetic.md", b"# it")}
    ids = released(world, id, at_work, kinds)
    assert world.get(f"/v1/files/{ids['synthetic']}").json()["filename"] == "synthetic.jsonl"
    got = world.get(f"/v1/files/{ids['synthetic']}/content")
    assert (got.content, got.headers["x-content-sha256"]) == (data, hashlib.sha256(data).hexdigest())
    # A question would say that a private row is in it, beyond what the job was charged for.
    public = {"purpose": "evals", "task": "text"}
    made = world.upload(data, public, name="synthetic.jsonl").json()
    assert (made["status"], made.get("question")) == ("processed", None)
    # One byte more is somebody's file, as any other.
    asked_about = world.upload(data + b"\n", public, name="synthetic.jsonl").json()
    assert (asked_about["status"], asked_about["question"]["answers"]) == ("uploaded", ["publish"])
    # The adapter that is there already samples as often as one likes; a file that is not, is another job.
    again = body(files["text"], asked)
    assert world.post(JOBS, again).json()["error"]["code"] == "same_job_finished"
    assert world.post(JOBS, body(files["text"], None)).json()["error"]["code"] == "same_job_finished"
    estimate = world.post(f"{JOBS}/estimate", body(files["text"], asked | {"seed": 1})).json()
    assert estimate["finished_twin"] is None
