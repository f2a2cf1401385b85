"""A service over HTTP with a tiny base model, a worker that stops where a test wants it to, and a real Chromium."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from api.app import create_app
from domain.ingest.check import check
from domain.kit.settings import WorkerSettings
from tests.api.conftest import World, free_port, make_keys, make_settings, wait_for
from tests.conftest import Database
from tests.worker import tiny
from worker import attempt, training

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120_000  # milliseconds: a browser takes its time on a busy machine


@dataclass
class House(World):
    """A service, and its address for browsers."""

    address: str = ""

    def tickets(self, seed: int, name: str = "tickets.jsonl", tenant: str = "one", **form: str) -> dict[str, Any]:
        """A private file that the tiny model can learn, with a budget of its own."""
        texts, labels = tiny.rows(400, seed, mark=str(seed))
        lines = [
            json.dumps({"text": f"{t} {seed}", "label": tiny.LABELS[k]}) for t, k in zip(texts, labels, strict=True)
        ]
        fields = {
            "purpose": "fine-tune",
            "privacy_budget[epsilon]": "8",
            "declared_size": "400",
            "labels": ",".join(tiny.LABELS),
            "max_length": "16",
        }
        answer = self.upload("\n".join(lines).encode(), fields | form, name=name, tenant=tenant)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def letters(self, seed: int, **form: str) -> dict[str, Any]:
        """A private file of texts, of a hundred users with up to four each, with a budget of its own."""
        texts, _ = tiny.rows(400, seed, mark=str(seed))
        lines = [json.dumps({"text": f"{text} {seed}", "who": f"user {i % 100}"}) for i, text in enumerate(texts)]
        fields = {
            "purpose": "fine-tune",
            "task": "text",
            "columns[user]": "who",
            "privacy_budget[epsilon]": "8",
            "privacy_budget[unit]": "user",
            "privacy_budget[max_records_per_user]": "4",
            "declared_size": "100",
            "max_length": "16",
        }
        answer = self.upload("\n".join(lines).encode(), fields | form, name="letters.jsonl")
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def job(self, file: str, epsilon: float = 2.0, steps: int = 20, **body: Any) -> dict[str, Any]:
        numbers = {"steps": steps, "batch_size": 100, "learning_rate": 0.05, "weight_averaging": 0.5}
        options = {"r": 4, "hyperparameters": numbers}
        return self.submit(file, epsilon, **{"model": "tiny", "method": {"type": "lora", "lora": options}} | body)

    def work(self, job_id: str) -> None:
        """What a worker does with the job, in this process."""
        settings = WorkerSettings(
            database_url=self.database.worker_url,
            **{name: getattr(self.settings, name) for name in self.settings.model_fields if name in _SHARED},
        )
        engine = sa.create_engine(self.database.worker_url)
        attempt.attempt(engine, settings, job_id)
        engine.dispose()


_SHARED = set(WorkerSettings.model_fields) - {"database_url"}


@pytest.fixture(scope="module")
def house(module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "base").mkdir()
    (folder / "writer").mkdir()
    tiny.save_model(folder / "base")
    tiny.save_writer(folder / "writer")
    settings = make_settings(module_database, redis_server, folder).model_copy(
        update={"models": {"tiny": folder / "base", "writer": folder / "writer", "gone": folder / "gone"}}
    )
    keys = make_keys(module_database, settings)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    with pytest.MonkeyPatch.context() as patch, TestClient(create_app(settings), follow_redirects=False) as client:
        patch.setattr("api.files.endpoints.run_check", check)
        yield House(module_database, settings, client, keys, f"http://127.0.0.1:{port}")
    server.should_exit = True
    thread.join(20)


@dataclass
class Gate:
    """Lets a worker's chunks through one by one."""

    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def open(self, chunks: int = 1) -> None:
        self.waiting.release(chunks)


@contextmanager
def working(house: House, job_id: str) -> Iterator[Gate]:
    """A worker on the job that stands before its first chunk, and goes on as the gate is opened."""
    gate = Gate()
    authorise = training.Training._authorise
    with pytest.MonkeyPatch.context() as patch:

        def wait(self: Any, *arguments: Any) -> int:
            assert gate.waiting.acquire(timeout=300)
            return authorise(self, *arguments)

        patch.setattr(training.Training, "_authorise", wait)
        thread = threading.Thread(target=house.work, args=(job_id,))
        thread.start()
        yield gate
        gate.open(100)
        thread.join(300)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        why = f"no browser: none of {', '.join(PROGRAMS)} is on PATH (apt-get install chromium)"
        if os.environ.get("TACIT_REQUIRE_ALL") == "1":
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield browser
        browser.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, house: House) -> Iterator[Open]:
    """Pages as somebody with a scope; at the end none has complained or asked another site for anything."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def logged_in(scope: str = "admin", **options: Any) -> Page:
        context = chromium.new_context(base_url=house.address, timezone_id="UTC", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(house.address) else complaints.append(f"asked for {asked.url}"),
        )
        page.on("dialog", lambda dialog: complaints.append(f"a script ran: {dialog.message}"))
        if scope:
            log_in(page, house.keys["one"][scope])
        return page

    yield logged_in
    for context in contexts:
        context.close()
    # The browser itself logs every answer of 400 and more: those are the tests' own.
    assert [c for c in complaints if "the server responded with a status of 4" not in c] == []


def log_in(page: Page, key: str) -> None:
    page.goto("/dashboard/login")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Budgets", level=1).wait_for()
