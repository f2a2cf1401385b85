"""A request that names no method: a preset chooses; and what an estimate guesses of the result."""

import re
from typing import Any

import pytest
import sqlalchemy as sa

from domain.models.allow_list import base_models
from domain.models.profiles import Measured, record
from tests.api.attacks import DASHBOARD, Browser, Call
from tests.api.conftest import JOBS, World
from tests.api.test_jobs import finish

pytestmark = pytest.mark.usefixtures("quick_checks")
ESTIMATE = f"{JOBS}/estimate"
LARGE = {"r": 16, "target_modules": "all-linear"}


def asked(file: str, method: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    basis = {"model": "minilm-l6", "training_file": file, "privacy": {"share": 0.25}}
    return basis | ({} if method is None else {"method": method}) | body


def unnamed(preset: str, **more: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"preset": preset, **more}}


def measured(world: World, connection: sa.Connection) -> None:
    """What a worker found out about the method's defaults, and about what the preset chooses for a large file."""
    model = base_models(world.settings).usable["minilm-l6"]
    for options, speed in (({}, 3000.0), (LARGE, 1000.0)):
        record(connection, model, Measured("lora", "classification", "a processor", 128, speed, 1, 1, options=options))


@pytest.fixture
def large(world: World) -> str:
    """A file of so many declared rows that noise leaves room for all linear layers."""
    return world.private_file(declared_size="80000")["id"]


def test_who_names_nothing_gets_what_is_best_and_fast_takes_less_time(world: World, large: str) -> None:
    with world.engine("worker").begin() as connection:
        measured(world, connection)
    nothing = world.post(ESTIMATE, asked(large)).json()
    best, fast = (world.post(ESTIMATE, asked(large, unnamed(name))).json() for name in ("best", "fast"))
    assert nothing == best
    assert LARGE.items() <= best["method"]["lora"].items()
    assert fast["method"]["lora"]["target_modules"] == "auto"
    numbers = best["method"]["lora"]["hyperparameters"]
    assert best["seconds"] == pytest.approx(numbers["steps"] * numbers["batch_size"] * 128 / 1000)
    assert fast["seconds"] < best["seconds"] / 20

    job = world.post(JOBS, asked(large, unnamed("fast", hyperparameters={"steps": 7}))).json()
    assert job["method"]["type"] == "lora"
    assert job["hyperparameters"]["steps"] == 7
    assert job["hyperparameters"]["batch_size"] == fast["method"]["lora"]["hyperparameters"]["batch_size"]


@pytest.mark.parametrize(
    ("method", "param"),
    [
        (unnamed("slow"), "method.supervised.preset"),
        ({"type": "lora", "lora": {"preset": "fast"}}, "method.lora.preset"),
        (unnamed("best", hyperparameters={"batch_size": 10**6}), "method.supervised.hyperparameters.batch_size"),
    ],
)
def test_a_preset_that_cannot_be_is_refused_by_its_field(world: World, large: str, method: Any, param: str) -> None:
    answer = world.post(ESTIMATE, asked(large, method))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_an_estimate_guesses_from_public_values_and_a_job_that_ended_changes_nothing(
    world: World, large: str, at_work: sa.Connection
) -> None:
    advice = world.post(ESTIMATE, asked(large)).json()["advice"]
    gains = [one["gain"] for one in advice["by_share"]]
    assert gains == sorted(gains)
    assert advice["by_share"][-1]["share"] == 1
    assert 0.5 < advice["expected"]["accuracy"] <= 0.9
    assert 0 < advice["least_share"] < 0.25
    assert advice["note"].startswith("a guess")
    found = {"file": "file-public", "accuracy": 0.1, "standard_error": 0.01, "evaluated": 80, "majority": 0.5}
    finish(world, {"id": large}, at_work, measured=found)
    assert world.post(ESTIMATE, asked(large)).json()["advice"] == advice
    other = world.private_file(declared_size="80000")["id"]
    assert world.post(ESTIMATE, asked(other)).json()["advice"] == advice  # other rows, the same guess
    assert world.post(ESTIMATE, asked(large, {"type": "full"})).json()["advice"] is None


def test_the_page_plans_by_preset_and_shows_the_guess_and_both_times(world: World, large: str) -> None:
    with world.engine("worker").begin() as connection:
        measured(world, connection)
    browser = Browser(world, world.keys["one"]["admin"])
    query = {"training_file": large, "share": "25 %", "method": "fast"}
    page = browser.send(Call("GET", f"{DASHBOARD}/estimate", query=query)).text
    assert "<option selected>fast</option>" in page
    assert "What may come out" in page
    best = 60 * 4096 * 128 / 1000 / 60
    assert re.search(rf"The preset best.*?{round(best):,} min", page, re.DOTALL)
    assert f"{round(30 * 1024 * 128 / 3000 / 60):,} min" in page
    assert "The preset fast and what you filled in make it the method lora, r 8" in page
    form = query | {"model": "minilm-l6", "once": "ab"}
    made = browser.send(Call("POST", f"{DASHBOARD}/estimate", form=form))
    assert made.status_code == 303, made.text
    job = world.get(f"{JOBS}/{made.headers['location'].rpartition('/')[2]}").json()
    assert (job["method"]["type"], job["hyperparameters"]["steps"]) == ("lora", 30)
