"""Teachers from elsewhere: what does not go with the job is refused by field, before anything is reserved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from api.app import create_app
from domain.jobs import resolving
from domain.kit.ids import new_id
from domain.kit.tables import job
from ledger import work
from tests.api.conftest import JOBS, World, make_keys, make_settings
from tests.api.test_jobs import finish
from tests.conftest import Database
from tests.worker import tiny

pytestmark = pytest.mark.usefixtures("quick_checks")
SHAPE = {"vocab_size": 23, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64} | {
    "num_hidden_layers": 3,
    "max_position_embeddings": 32,
}


def classifier(base: Path, folder: Path, labels: tuple[str, ...], **shape: int) -> Path:
    """With a head of its own, and the tokenizer of the base model."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = BertConfig(**SHAPE | shape, **names)
    BertForSequenceClassification(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    base, writer = folder / "base", folder / "writer"
    tiny.save_model(base)
    tiny.save_writer(writer)
    made = {
        "judge": classifier(base, folder / "judge", ("1", "0")),
        "critic": classifier(base, folder / "critic", ("bad", "good")),
        "dwarf": classifier(base, folder / "dwarf", ("0", "1"), num_hidden_layers=1, intermediate_size=8),
        "stranger": classifier(base, folder / "stranger", ("0", "1")),
    }
    words = (made["stranger"] / "tokenizer.json").read_text(encoding="utf-8")
    (made["stranger"] / "tokenizer.json").write_text(words.replace('"apple"', '"apples"'), encoding="utf-8")
    return made | {"base": base, "writer": writer}


@pytest.fixture(scope="module")
def world(
    module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]
) -> Iterator[World]:
    settings = make_settings(module_database, redis_server, tmp_path_factory.mktemp("world"))
    settings = settings.model_copy(update={"models": models})
    keys = make_keys(module_database, settings)
    with TestClient(create_app(settings)) as client:
        yield World(module_database, settings, client, keys)


def ask(world: World, training: dict[str, Any], *, path: str = f"{JOBS}/estimate", **options: Any) -> Any:
    method = {"type": "distill", "distill": options | {"hyperparameters": {"steps": 20, "batch_size": 20}}}
    body = {"model": "base", "training_file": training["id"], "method": method, "privacy": {"epsilon": 2.0}}
    return world.post(path, body)


def refused(answer: Any) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"].removeprefix("method.distill.")


def spent(world: World, training: dict[str, Any]) -> tuple[float, float]:
    budget = world.get(f"/v1/budgets/{training['budget']}").json()
    return budget["epsilon_spent"], budget["epsilon_reserved"]


def test_a_teacher_of_this_job_costs_noise_and_a_public_one_does_not(world: World, training: dict[str, Any]) -> None:
    own, public = (ask(world, training, **o) for o in ({}, {"teacher": "public", "teacher_model": "judge"}))
    assert (own.status_code, public.status_code) == (200, 200), own.text + public.text
    names = [[p["name"] for p in answer.json()["privacy"]["phases"]] for answer in (own, public)]
    assert names == [["teacher", "student"], ["student"]]
    noise = [answer.json()["privacy"]["phases"][-1]["noise_multiplier"] for answer in (own, public)]
    assert noise[0] > noise[1] * 1.05
    assert spent(world, training) == (0, 0)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody", "unknown_model"),
        ("critic", "labels_differ"),
        ("base", "labels_differ"),
        ("writer", "labels_differ"),
        ("stranger", "tokenizers_differ"),
        ("dwarf", "invalid_request"),
    ],
)
def test_a_public_teacher_that_does_not_go_with_the_job_is_refused(
    world: World, training: dict[str, Any], name: str, code: str
) -> None:
    answer = ask(world, training, path=JOBS, teacher="public", teacher_model=name)
    assert refused(answer) == (400, code, "teacher_model")
    assert spent(world, training) == (0, 0)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody", "unknown_model"),
        ("stranger", "tokenizers_differ"),
        ("judge", "invalid_request"),  # larger than its teacher
    ],
)
def test_another_model_that_cannot_be_the_student_is_refused(
    world: World, training: dict[str, Any], name: str, code: str
) -> None:
    assert refused(ask(world, training, path=JOBS, student_model=name)) == (400, code, "student_model")
    assert refused(ask(world, training, student_model="dwarf", student_layers=2))[2] == "student_layers"
    assert refused(ask(world, training, student_model="dwarf", teacher="public"))[2] == "student_model"
    assert spent(world, training) == (0, 0)


def test_another_model_is_the_student_at_the_price_of_both_phases(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    """And is what teaches later, where the job's result does."""
    own, other = (ask(world, training, **o).json() for o in ({}, {"student_model": "dwarf"}))
    assert other["privacy"]["phases"] == own["privacy"]["phases"]
    assert other["memory_bytes"] < own["memory_bytes"]
    done = of_base(world, training, at_work)
    with world.engine("superuser").begin() as c:
        plan = {"method": "distill", "options": {"student_model": "dwarf"}}
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.update(job).where(job.c.id == done).values(plan=plan, model="judge"))
    answer = ask(world, training, teacher="job", teacher_job=done)
    assert refused(answer) == (400, "invalid_request", "teacher_job"), "the teacher is the dwarf, and too small"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"student_layers": 2}, "student_layers"),
        ({"student_layers": [0, 0]}, "student_layers"),
        ({"student_layers": "most"}, "student_layers"),
        ({"teacher": "public"}, "teacher_model"),
        ({"mixing": 0}, "mixing"),
        ({"mixing": 2}, "mixing"),
    ],
)
def test_options_that_cannot_be_are_refused_by_field(
    world: World, training: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    assert refused(ask(world, training, **options)) == (400, "invalid_request", field)


def of_base(world: World, training: dict[str, Any], at_work: sa.Connection) -> str:
    """A job that has succeeded, whose base model is this module's."""
    done = finish(world, training, at_work)
    with world.engine("superuser").begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.text("UPDATE job SET model = 'base', model_revision = NULL WHERE id = :id"), {"id": done})
    return done


def test_an_earlier_job_of_the_same_budget_teaches_for_nothing(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    done = of_base(world, training, at_work)
    answer = ask(world, training, teacher="job", teacher_job=done)
    assert answer.status_code == 200, answer.text
    public = ask(world, training, teacher="public", teacher_model="judge").json()
    assert answer.json()["privacy"]["phases"] == public["privacy"]["phases"]
    made = ask(world, training, path=JOBS, teacher="job", teacher_job=done)
    assert made.status_code == 201, made.text
    assert made.json()["method"]["distill"]["teacher_job"] == done


def test_a_job_that_cannot_teach_is_refused_and_another_tenant_s_is_not_there(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    done = of_base(world, training, at_work)
    queued = world.submit(training["id"], 1.0)["id"]
    other = world.private_file()
    ungranted = world.upload(granted=False).json()
    hidden = world.post(JOBS, {"model": "base", "training_file": ungranted["id"]}, "admin")
    assert hidden.status_code == 201, hidden.text
    theirs = world.upload(tenant="two").json()
    foreign = of_tenant_two(world, theirs)
    before = spent(world, other)
    for id, wanted in (
        (done, (400, "budgets_differ")),
        (hidden.json()["id"], (404, "not_found")),
        (foreign, (404, "not_found")),
        (new_id("ftjob", "-"), (404, "not_found")),
    ):
        assert refused(ask(world, other, path=JOBS, teacher="job", teacher_job=id)) == (*wanted, "teacher_job")
    assert refused(ask(world, training, teacher="job", teacher_job=queued)) == (409, "no_adapter", "teacher_job")
    said = [ask(world, other, teacher="job", teacher_job=id).json()["error"]["message"] for id in (foreign, "ftjob-x")]
    assert said[0] == said[1], "nothing tells a foreign job from none"
    assert spent(world, other) == before == (0, 0)


def of_tenant_two(world: World, training: dict[str, Any]) -> str:
    answer = world.post(JOBS, {"model": "base", "training_file": training["id"]}, tenant="two")
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


def test_a_job_with_other_labels_does_not_teach(world: World, at_work: sa.Connection) -> None:
    """Under the same budget, on another file."""
    first = world.private_file()
    done = of_base(world, first, at_work)
    rows = b"text,label\n" + b"".join(f"other row {i},{'ab'[i % 2]}\n".encode() for i in range(50))
    form = {"purpose": "fine-tune", "budget": first["budget"], "declared_size": "400", "labels": "a,b"}
    second = world.upload(rows, form)
    assert second.status_code == 201, second.text
    answer = ask(world, second.json(), teacher="job", teacher_job=done)
    assert refused(answer) == (400, "labels_differ", "teacher_job")


def delete(world: World, file_id: str) -> tuple[int, list[str]]:
    answer = world.call("DELETE", f"/v1/files/{file_id}", "steward")
    return answer.status_code, answer.json().get("jobs", [])


def test_a_teacher_is_not_deleted_while_a_job_may_yet_learn_from_it(
    world: World, training: dict[str, Any], at_work: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued, running or paused; nor by somebody who asks while the job is being submitted."""
    done = of_base(world, training, at_work)
    adapter = world.get(f"{JOBS}/{done}").json()["result_files"][0]
    locked: list[str] = []
    known = resolving.known

    def look(*arguments: Any) -> Any:
        with world.engine("superuser").connect() as c, pytest.raises(sa.exc.OperationalError, match="lock"):
            c.execute(sa.text("SELECT FROM file WHERE id = :id FOR UPDATE NOWAIT"), {"id": adapter})
        locked.append(adapter)
        return known(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(resolving, "known", look)
        student = ask(world, training, path=JOBS, teacher="job", teacher_job=done).json()["id"]
    assert locked == [adapter]
    assert delete(world, adapter) == (409, [student])
    lease = work.claim(at_work, student, "w", 60)
    assert lease is not None
    at_work.execute(sa.update(job).where(job.c.id == student).values(status="running"))
    at_work.commit()
    assert delete(world, adapter) == (409, [student])
    world.post(f"{JOBS}/{student}/pause")
    work.drop(at_work, lease)
    at_work.commit()
    assert delete(world, adapter) == (409, [student])
    assert world.post(f"{JOBS}/{student}/cancel").json()["status"] == "cancelled"
    assert delete(world, adapter)[0] == 200
    answer = ask(world, training, path=JOBS, teacher="job", teacher_job=done)
    assert refused(answer) == (409, "no_adapter", "teacher_job")
