"""Plans of jobs over users: the true epsilon of this file's users, what a round would send, and what a larger population
would give, which is said to be imagined."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from fastapi.testclient import TestClient

from api.app import create_app
from tests.api.conftest import JOBS, World, make_keys, make_settings
from tests.conftest import Database
from tests.worker import tiny

ESTIMATE = f"{JOBS}/estimate"
USERS = 500
VOCABULARY, WIDTH, MAX_LENGTH = 22, 32, 16


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
def letters(world: World) -> dict[str, Any]:
    return upload(world, "user")


def upload(world: World, unit: str) -> dict[str, Any]:
    texts, _ = tiny.rows(600, seed=len(unit), mark=unit)
    lines = [json.dumps({"text": f"{text} {unit} {i}", "who": f"user {i % USERS}"}) for i, text in enumerate(texts)]
    form = {"purpose": "fine-tune", "task": "text", "privacy_budget[epsilon]": "8", "max_length": str(MAX_LENGTH)}
    if unit == "user":
        form |= {"columns[user]": "who", "privacy_budget[unit]": "user", "privacy_budget[max_records_per_user]": "2"}
    form["declared_size"] = str(USERS if unit == "user" else 600)
    answer = world.upload("\n".join(lines).encode(), form, name="letters.jsonl")
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def ask(world: World, file: dict[str, Any], query: str = "", model: str = "writer", **options: Any) -> Any:
    numbers = {"steps": 50, "batch_size": 100} | options.pop("hyperparameters", {})
    method = {"type": "federated-lm", "federated-lm": options | {"hyperparameters": numbers}}
    body = {"model": model, "training_file": file["id"], "method": method, "privacy": {"epsilon": 4.0}}
    return world.post(ESTIMATE + query, body)


def test_a_round_sends_what_trains_and_the_price_is_of_these_users(world: World, letters: dict[str, Any]) -> None:
    answer = ask(world, letters, rows=6, r=2, loss="nce", negatives=5)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    (phase,) = made["privacy"]["phases"]
    assert (made["privacy"]["unit"], phase["sample_rate"], phase["steps"]) == ("user", 100 / USERS, 50)
    numbers = 6 * WIDTH + 2 * (WIDTH + 3 * WIDTH)  # rows of the one table, and factors of the fused attention
    assert made["updates"]["message_bytes"] == 4 * numbers
    bound = 100 / (phase["noise_multiplier"] * numbers**0.5)
    assert made["updates"]["signal_to_noise"] == pytest.approx(bound, rel=1e-3)
    whole = ask(world, letters, rows="all", blocks="all").json()
    assert whole["updates"]["model_ratio"] == pytest.approx(1, rel=0.05)
    assert whole["updates"]["head_bytes"] == 4 * 3 * 16 * MAX_LENGTH * VOCABULARY
    private = ask(world, letters, rows=6, chosen_by="private").json()["privacy"]
    assert [(p["name"], p["mechanism"], p["steps"]) for p in private["phases"]] == [
        ("words", "gaussian", 1),
        ("train", "poisson_gaussian", 50),
    ]
    assert private["epsilon"] <= 4.0
    assert private["phases"][1]["noise_multiplier"] > phase["noise_multiplier"], "the counts are paid for too"


@pytest.mark.verify  # it waits for an accountant
def test_what_the_planner_says_of_a_million_users_is_what_an_accountant_says(
    world: World, letters: dict[str, Any]
) -> None:
    made = ask(world, letters, "?population=1000000&cohort=5000").json()
    (imagined,) = made["imagined"]
    (phase,) = made["privacy"]["phases"]
    assert (imagined["population"], imagined["cohort"]) == (10**6, 5000)
    # The same noise in the mean: sigma over the cohort.
    assert imagined["noise_multiplier"] / 5000 == pytest.approx(phase["noise_multiplier"] / 100)
    event = PoissonSampledDpEvent(5000 / 10**6, GaussianDpEvent(imagined["noise_multiplier"]))
    found = {}
    for name, accountant in (
        ("renyi", RdpAccountant([1 + x / 10 for x in range(1, 100)] + [*range(12, 4097, 4)])),
        ("losses", PLDAccountant(value_discretization_interval=1e-5)),
    ):
        accountant.compose(event, 50)
        found[name] = accountant.get_epsilon(imagined["delta"])
    assert 0.99 * found["losses"] <= imagined["epsilon"] <= found["renyi"]
    assert imagined["epsilon"] == pytest.approx(found["losses"], rel=0.05, abs=1e-3)
    assert imagined["delta"] == pytest.approx(1e-7)
    assert imagined["epsilon"] < made["privacy"]["epsilon"] / 4
    assert "imagined" in imagined["note"]
    # Nothing of it is promised, priced or kept.
    plain = ask(world, letters).json()
    assert plain["privacy"] == made["privacy"]
    assert [one["population"] for one in plain["imagined"]] == [10 * USERS, 100 * USERS]


@pytest.mark.parametrize(
    ("query", "options", "param", "words"),
    [
        ("?population=500", {}, "population", "not larger than the file's declared 500"),
        ("?population=1000&cohort=2000", {}, "cohort", "has no 2000 users"),
        ("?cohort=20", {}, "cohort", "name it too"),
        ("?population=many", {}, "population", "integer"),
        ("", {"rows": 23}, "method.federated-lm.rows", "the vocabulary has 22 rows"),
        ("", {"rows": 0}, "method.federated-lm.rows", "greater than or equal to 1"),
        ("", {"loss": "nce", "negatives": 23}, "method.federated-lm.negatives", "there are 22 words"),
        ("", {"hyperparameters": {"clipping": "automatic"}}, "method.federated-lm.hyperparameters.clipping", "'flat'"),
        ("", {"hyperparameters": {"batch_size": 501}}, "method.federated-lm.hyperparameters.batch_size", "declared"),
    ],
)
def test_what_cannot_be_is_named(
    world: World, letters: dict[str, Any], query: str, options: dict[str, Any], param: str, words: str
) -> None:
    answer = ask(world, letters, query, **options)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["detail"]


def test_single_records_and_classifiers_are_refused(world: World, letters: dict[str, Any]) -> None:
    answer = ask(world, upload(world, "record"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_unit")
    assert "whose unit is user" in answer.json()["detail"]
    assert ask(world, world.private_file(), model="reader").json()["error"]["code"] == "unsupported_method"
    body = {"model": "reader", "training_file": world.private_file()["id"], "privacy": {"epsilon": 1.0}}
    answer = world.post(f"{ESTIMATE}?population=1000000", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "population")
    plain = world.post(ESTIMATE, body).json()
    assert (plain["updates"], plain["imagined"]) == (None, [])
