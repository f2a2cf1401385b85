"""What loading a base model may raise ends the job at once, at no cost, with a public reason; other models go on."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from domain.kit.settings import WorkerSettings
from domain.kit.tables import job, job_event
from domain.models.allow_list import describe
from tests import folders
from tests.worker.service import Service
from worker import build as module
from worker.attempt import attempt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return folders.make(tmp_path_factory.mktemp("models"))


@pytest.fixture
def allowing(settings: WorkerSettings, made: dict[str, Path]) -> WorkerSettings:
    """A worker to whom all of them are allowed."""
    return settings.model_copy(update={"models": made})


WORDS = {
    "other-shapes": "intermediate.dense",
    "strange-type": "Error while deserializing header",
    "cut-tokenizer": "",
    "unknown-kind": "nobodys",
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", [*folders.LOADED, "gone", "lacking-shard", "four-bit", "own-code"])
def test_a_model_that_cannot_be_loaded_ends_the_job_free_and_says_why(
    service: Service, engine: sa.Engine, allowing: WorkerSettings, made: dict[str, Path], name: str
) -> None:
    id = service.submit(model=name, hint=False)
    attempt(engine, allowing, id)
    error = require_free(service, id, "model_unavailable")
    word = WORDS[name] if name in WORDS else folders.SEEN[name][1]
    assert word in error["message"]
    seen = [*service.one(sa.select(job).where(job.c.id == id)), *service.all(sa.select(job_event))]
    assert str(made[name].parent) not in str(seen)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["tiny", *folders.FINE])
def test_a_good_model_beside_broken_ones_is_trained(
    service: Service, engine: sa.Engine, allowing: WorkerSettings, name: str
) -> None:
    id = service.submit(model=name, steps=2, hint=False)
    attempt(engine, allowing, id)
    assert service.status(id) == "succeeded"


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", [RuntimeError, ImportError, KeyError, AssertionError])
@pytest.mark.parametrize(("step", "code"), [("build_model", "model_unavailable"), ("make_task", "not_trainable")])
def test_no_error_of_building_is_tried_again(
    service: Service,
    engine: sa.Engine,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    step: str,
    code: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise kind(f"no such layer in /srv/models/{'deep/' * 200}config.json")

    monkeypatch.setattr(module, step, fail)
    id = service.submit(hint=False)
    attempt(engine, settings, id)
    message = require_free(service, id, code)["message"]
    assert "no such layer in config.json" in message
    assert len(message) < 650


def test_a_job_is_trained_on_the_weights_that_it_was_planned_for_or_on_none(
    service: Service, engine: sa.Engine, settings: WorkerSettings
) -> None:
    now = describe("tiny", service.model).revision
    planned = [service.submit(model_revision=revision, steps=2, hint=False) for revision in (now, "0" * 64)]
    for id in planned:
        attempt(engine, settings, id)
    assert service.status(planned[0]) == "succeeded"
    assert "other weights" in require_free(service, planned[1], "model_unavailable")["message"]


def test_a_job_whose_model_left_the_allow_list_while_it_waited_ends_free(
    service: Service, engine: sa.Engine, settings: WorkerSettings
) -> None:
    id = service.submit(hint=False)
    attempt(engine, settings.model_copy(update={"models": {}}), id)
    assert "not one of this worker's" in require_free(service, id, "model_unavailable")["message"]


def test_running_out_of_memory_while_loading_is_said_as_such(
    service: Service, engine: sa.Engine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(module, "build_model", fail)
    id = service.submit(hint=False)
    attempt(engine, settings, id)
    require_free(service, id, "out_of_memory")


def require_free(service: Service, id: str, code: str) -> dict[str, Any]:
    """The job failed with this code after one attempt and cost nothing."""
    row = service.one(sa.select(job).where(job.c.id == id))
    assert (row.status, row.error["code"]) == ("failed", code)
    assert service.authorised(id) == 0
    assert not any(service.settlement(id).spent_change)
    error: dict[str, Any] = row.error
    return error
