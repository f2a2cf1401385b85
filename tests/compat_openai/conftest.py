"""A running server, and clients of the stock `openai` package for a steward and an analyst."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
import sqlalchemy as sa

from api.app import create_app
from domain.kit.settings import WorkerSettings
from tests.api.conftest import World, make_keys, make_settings, quick_checks, running
from tests.conftest import Database
from tests.worker import tiny

__all__ = ["quick_checks"]
ROWS = 400


@pytest.fixture(scope="module")
def world(module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A service whose one model trains in a moment."""
    folder = tmp_path_factory.mktemp("compat")
    (folder / "base").mkdir()
    tiny.save_model(folder / "base")
    settings = make_settings(module_database, redis_server, folder)
    settings = settings.model_copy(update={"models": {"tiny": folder / "base"}})
    return World(module_database, settings, None, make_keys(module_database, settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def address(world: World, quick_checks: None) -> Iterator[str]:
    with running(create_app(world.settings)) as address:
        yield address


@pytest.fixture(scope="module")
def client_of(world: World, address: str) -> Callable[[str], openai.OpenAI]:
    """The stock client with the key of a scope; nothing else about it is special."""
    return lambda scope: openai.OpenAI(api_key=world.keys["one"][scope], base_url=f"{address}/v1")


@pytest.fixture(scope="module")
def steward(client_of: Callable[[str], openai.OpenAI]) -> openai.OpenAI:
    return client_of("steward")


@pytest.fixture(scope="module")
def analyst(client_of: Callable[[str], openai.OpenAI]) -> openai.OpenAI:
    return client_of("analyst")


@pytest.fixture(scope="module")
def training_file(steward: openai.OpenAI) -> str:
    """A private file with a budget of its own, which the analyst may use."""
    texts, labels = tiny.rows(ROWS, seed=1)
    lines = "".join(f"{text},{tiny.LABELS[label]}\n" for text, label in zip(texts, labels, strict=True))
    made = steward.files.create(
        file=("rows.csv", f"text,label\n{lines}".encode()),
        purpose="fine-tune",
        extra_body={
            "privacy_budget": {"epsilon": 50},
            "declared_size": ROWS,
            "labels": list(tiny.LABELS),
            "max_length": 16,
        },
    )
    assert steward.files.wait_for_processing(made.id).status == "processed"
    budget: str = made.budget  # type: ignore[attr-defined]
    steward.post(f"/budgets/{budget}/grants", cast_to=object, body={"project": "lab"})
    return made.id


@pytest.fixture(scope="module")
def submit(analyst: openai.OpenAI, training_file: str) -> Callable[..., Any]:
    """A job that takes seconds."""

    def create(steps: int = 20, **more: Any) -> Any:
        numbers = {"steps": steps, "batch_size": 20, "learning_rate": 0.02}
        method = {"type": "lora", "lora": {"r": 4, "hyperparameters": numbers}}
        extra = {"privacy": {"epsilon": 2}, "allow_duplicate": True}
        return analyst.fine_tuning.jobs.create(
            model="tiny", training_file=training_file, method=method, extra_body=extra, **more
        )

    return create


@pytest.fixture(scope="module")
def work(world: World) -> Callable[[str], None]:
    """What a worker does with a job that it finds on the queue, in this process."""
    shared = set(WorkerSettings.model_fields) - {"database_url"}
    given = {name: getattr(world.settings, name) for name in type(world.settings).model_fields if name in shared}
    settings = WorkerSettings(database_url=world.database.worker_url, **given)

    def attempt(job_id: str) -> None:
        from worker.attempt import attempt  # imports torch: only where somebody trains

        attempt(sa.create_engine(world.database.worker_url, poolclass=sa.NullPool), settings, job_id)

    return attempt
