"""A private measurement: what it costs beside the training, what it asks of the budget, and where its figure is shown."""

from typing import Any

import pytest
import sqlalchemy as sa

from domain.jobs.quality import together
from dpcore.terms.accounting import SHARE_DIGITS
from tests.api.attacks import DASHBOARD, Browser, Call
from tests.api.conftest import JOBS, World, job_body
from tests.api.test_jobs import finish

pytestmark = pytest.mark.usefixtures("quick_checks")
ESTIMATE = f"{JOBS}/estimate"
PUBLIC = {
    "metric": "accuracy",
    "value": 0.9,
    "evaluated": 80,
    "standard_error": 0.03,
    "untrained": 0.5,
    "baseline": 0.5,
}
PUBLIC |= {"file": "file-public", "per_class": None}
PRIVATE = {"metric": "accuracy", "value": 0.88, "evaluated": 201, "standard_error": 0.04, "noise_error": 0.02}
PRIVATE |= {"most_loss": None, "share": 0.01}


@pytest.fixture(scope="module")
def parted(world: World) -> dict[str, Any]:
    """A file of 2000, of which a fifth is held out."""
    return world.private_file(**{"privacy_budget[held_out]": "0.2", "declared_size": "2000"})


def asked(file: dict[str, Any], measure: Any = 0.01, **body: Any) -> dict[str, Any]:
    return job_body(file["id"], **{"privacy": {"share": 0.25}, "measure": {"share": measure}} | body)


def test_the_price_of_a_measurement_is_a_part_of_the_jobs_and_told_beside_its_error(
    world: World, parted: dict[str, Any]
) -> None:
    for price in ({"share": 0.25}, {"epsilon": 3.0}):
        answer = world.post(ESTIMATE, asked(parted, privacy=price))
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert said["fits"], said
        privacy = said["privacy"]
        train, look = privacy["phases"]
        assert (look["name"], look["trains"], look["mechanism"]) == ("measure", "nothing", "gaussian")
        assert (look["steps"], look["sample_rate"]) == (1, 1.0)
        # A sum of both, and the batch is drawn from what is left to train on.
        assert privacy["share"] == pytest.approx(train["share"] + look["share"], abs=3 / SHARE_DIGITS)
        assert 0.0099 < look["share"] <= 0.01
        assert train["sample_rate"] == privacy["sample_rate"] == pytest.approx(20 / 1600)
        assert privacy["noise_multiplier"] == train["noise_multiplier"]
        assert privacy["share"] <= 0.25 if "share" in price else 2.99 < privacy["epsilon"] <= 3.0
        measure = privacy["measure"]
        assert (measure["units"], measure["share"], measure["most_loss"]) == (400, look["share"], None)
        assert measure["expected_noise_error"] == pytest.approx(look["noise_multiplier"] / 400)
        assert measure["expected_noise_error"] < measure["expected_standard_error"]
    without = world.post(ESTIMATE, job_body(parted["id"], privacy={"share": 0.25})).json()["privacy"]
    assert without["measure"] is None
    assert without["noise_multiplier"] < train["noise_multiplier"] or "epsilon" in price
    largest = said["largest_share"]
    most = asked(parted, privacy={"share": largest})
    assert world.post(ESTIMATE, most).json()["fits"]


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "more than the job": ({"measure": {"share": 0.25}}, "measure_too_large"),
    "more than a job by epsilon": ({"measure": {"share": 0.5}, "privacy": {"epsilon": 0.5}}, "measure_too_large"),
    "drowned in noise": ({"measure": {"share": 0.00002}}, "measure_too_small"),
    "less than the most noise": ({"measure": {"share": 1e-9}}, "measure_too_small"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_would_not_tell_is_refused_before_anything_is_paid(
    world: World, parted: dict[str, Any], name: str
) -> None:
    body, code = REFUSALS[name]
    for path in (ESTIMATE, JOBS):
        answer = world.post(path, asked(parted) | body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, "measure.share"), error
    enough = answer.json().get("smallest_share")
    if name == "drowned in noise":
        assert world.post(ESTIMATE, asked(parted, enough)).status_code == 200


def test_a_budget_that_holds_nothing_out_has_nothing_to_measure_on(world: World) -> None:
    answer = world.post(ESTIMATE, asked(world.private_file()))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "nothing_held_out")


def test_a_batch_above_what_is_trained_on_and_a_federated_job_are_refused(world: World, parted: dict[str, Any]) -> None:
    method = {"type": "lora", "lora": {"hyperparameters": {"batch_size": 1601}}}
    error = world.post(ESTIMATE, job_body(parted["id"], method=method)).json()["error"]
    assert error["param"] == "method.lora.hyperparameters.batch_size"
    assert "1600" in error["message"]
    error = world.post(ESTIMATE, job_body(parted["id"], method={"type": "federated-lora"})).json()["error"]
    assert (error["code"], error["param"]) == ("held_out_unsupported", "method.type")


def test_a_share_is_held_out_for_good_and_said_when_the_budget_opens(world: World, parted: dict[str, Any]) -> None:
    assert world.get(f"/v1/budgets/{parted['budget']}").json()["held_out"] == 0.2
    body = {"name": "parted", "epsilon": 8, "delta": 1e-6}
    assert world.post("/v1/budgets", body, "steward").json()["held_out"] == 0
    assert world.post("/v1/budgets", body | {"held_out": 0.05}, "steward").json()["held_out"] == 0.05
    for wrong in (0.005, 0.51, -0.1, 0.12345, "a"):
        answer = world.post("/v1/budgets", body | {"held_out": wrong}, "steward")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "held_out"), wrong


def test_the_form_asks_for_what_the_api_does(world: World, parted: dict[str, Any]) -> None:
    analyst, steward = (Browser(world, world.keys["one"][scope]) for scope in ("analyst", "steward"))
    query = {"training_file": parted["id"], "model": "minilm-l6", "share": "25 %", "steps": "40", "batch_size": "20"}
    planned = analyst.send(Call("GET", f"{DASHBOARD}/estimate", query=query | {"measure": "1 %"}))
    assert planned.status_code == 200, planned.text
    assert "Measured privately" in planned.text
    refused = analyst.send(Call("GET", f"{DASHBOARD}/estimate", query=query | {"measure": "30 %"}))
    assert refused.status_code == 400
    assert "leaves nothing to train with" in refused.text
    form = {"name": "by a page", "epsilon": "8", "delta": "1e-6", "unit": "record", "held_out": "0.1"}
    opened = steward.send(Call("POST", f"{DASHBOARD}/budgets/new", form=form))
    assert opened.status_code == 303, opened.text
    page = steward.send(Call("GET", opened.headers["location"]))
    assert "10 % of its records are held out" in page.text


def test_a_private_figure_stands_beside_a_public_one_or_in_its_place(
    world: World, parted: dict[str, Any], at_work: sa.Connection
) -> None:
    both = world.get(f"{JOBS}/{finish(world, world.private_file(), at_work, measured=together(PUBLIC, PRIVATE))}")
    shown = both.json()["quality"]
    assert (shown["source"], shown["value"], shown["file"]) == ("public", 0.9, "file-public")
    assert shown["private"] == PRIVATE
    alone = finish(world, world.private_file(), at_work, measured=together(None, PRIVATE))
    shown = world.get(f"{JOBS}/{alone}").json()["quality"]
    assert (shown["source"], shown["value"], shown["file"]) == ("private", 0.88, None)
    assert (shown["private"], shown["evaluated"], shown["standard_error"]) == (PRIVATE, 201, 0.04)
    listed = next(job for job in world.get(JOBS).json()["data"] if job["id"] == alone)
    assert listed["quality"] == shown
    reader, file = Browser(world, world.keys["one"]["analyst"]), world.get(f"{JOBS}/{alone}").json()["training_file"]
    for job, words in ((alone, "Quality on held-out records"), (both.json()["id"], "Quality on a public file")):
        page = reader.send(Call("GET", f"{DASHBOARD}/jobs/{job}"))
        assert page.status_code == 200, page.text
        assert words in page.text
        assert "A private measurement on units that no job trained on" in page.text
    side_by_side = reader.send(Call("GET", f"{DASHBOARD}/files/{file}/jobs"))
    assert "measured on held-out units" in side_by_side.text
    assert reader.send(Call("GET", f"{DASHBOARD}/jobs")).status_code == 200
    assert together(PUBLIC, None) == PUBLIC
    assert together(None, None) is None
