"""Shares of a budget: asked for in place of an epsilon, added up by the budget, and told with each price and refusal."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from api.jobs.schemas import NewJob
from domain.kit.tables import job, job_event
from domain.models.allow_list import base_models
from domain.models.profiles import Measured, record
from dpcore.terms.accounting import caps
from dpcore.terms.methods import get_method, method_names
from ledger import work
from ledger.budgets import balance
from tests.api.attacks import DASHBOARD, Browser, Call
from tests.api.conftest import JOBS, World, job_body
from tests.api.test_jobs import finish
from tests.superuser import past_triggers

pytestmark = pytest.mark.usefixtures("quick_checks")
ESTIMATE = f"{JOBS}/estimate"


def by_share(file: str, share: Any, **body: Any) -> dict[str, Any]:
    return job_body(file, privacy={"share": share}, **body)


def two_phases(file: str, **body: Any) -> dict[str, Any]:
    """Five steps in which everything trains, ten of the biases."""
    numbers = {"steps": 10, "batch_size": 20, "full_learning_rate": 0.01}
    bitfit = {"full_steps": 5, "hyperparameters": numbers}
    return job_body(file, method={"type": "bitfit", "bitfit": bitfit}, **body)


def shown(world: World, file: dict[str, Any]) -> dict[str, Any]:
    return world.get(f"/v1/budgets/{file['budget']}").json()


def test_a_job_by_its_share_says_both_and_the_budget_adds_shares_up(world: World, training: dict[str, Any]) -> None:
    estimate = world.post(ESTIMATE, by_share(training["id"], 0.25)).json()
    price = estimate["privacy"]
    assert (estimate["fits"], price["main_order"], price["asked"], price["asked_for"]) == (True, True, "share", 0.25)
    assert 0.2499 < price["share"] <= 0.25
    assert 0 < price["epsilon"] < 8
    first = world.post(JOBS, by_share(training["id"], 0.25)).json()
    assert first["privacy"] == price
    second = world.submit(training["id"], price["epsilon"])["privacy"]
    assert second["share"] == pytest.approx(price["share"], abs=1e-5)  # one price, asked for in two ways
    budget = shown(world, training)
    assert budget["share_spent"] == 0
    assert budget["share_reserved"] == pytest.approx(price["share"] + second["share"], abs=2e-6)
    assert budget["share_left"] <= 1 - budget["share_reserved"] + 1e-6
    rest = world.post(JOBS, by_share(training["id"], budget["share_left"]))
    assert rest.status_code == 201, rest.text
    assert shown(world, training)["share_left"] < 1e-4


def test_what_was_authorised_is_what_is_used(world: World, training: dict[str, Any], at_work: sa.Connection) -> None:
    made = world.post(JOBS, two_phases(training["id"], privacy={"share": 0.5})).json()
    everything, biases = made["privacy"]["phases"]
    assert (everything["name"], everything["trains"], everything["mechanism"]) == (
        "everything",
        "full",
        "poisson_gaussian",
    )
    assert (everything["steps"], biases["steps"], made["progress"]["total_steps"]) == (5, 10, 15)
    assert everything["noise_multiplier"] == biases["noise_multiplier"]
    assert max(everything["epsilon"], biases["epsilon"]) < made["privacy"]["epsilon"]
    assert made["privacy"]["epsilon"] < everything["epsilon"] + biases["epsilon"]
    assert everything["share"] + biases["share"] == pytest.approx(made["privacy"]["share"], abs=2e-6)
    lease = work.claim(at_work, made["id"], "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, 5)
    work.authorise(at_work, lease, 1, 2)
    for ordinal, done in ((0, 5), (1, 7)):
        data = {"step": done, "total_steps": 15, "phase": made["privacy"]["phases"][ordinal]["name"]}
        message = f"Step {done} of 15: authorised and charged."
        at_work.execute(
            job_event.insert().values(
                job_id=made["id"], name="steps.authorised", level="info", type="metrics", message=message, data=data
            )
        )
    at_work.commit()
    now = world.get(f"{JOBS}/{made['id']}").json()
    assert [phase["steps_authorised"] for phase in now["privacy"]["phases"]] == [5, 2]
    used = everything["share"] + biases["share"] * 2 / 10
    assert used <= now["privacy"]["share_used"] < used + 2e-6
    listed = world.get(f"{JOBS}/{made['id']}/events", params={"order": "asc"}).json()["data"]
    told = [event["message"] for event in listed if event["type"] == "metrics"]
    assert told == [
        "Phase everything: step 5 of 15: authorised and charged.",
        "Phase biases: step 7 of 15: authorised and charged.",
    ]
    world.post(f"{JOBS}/{made['id']}/cancel")
    work.drop(at_work, lease)
    at_work.commit()
    assert world.post(f"{JOBS}/{made['id']}/cancel").json()["status"] == "cancelled"
    assert shown(world, training)["share_spent"] == pytest.approx(used, abs=2e-6)


def test_refusals_name_the_largest_share_and_the_smallest(world: World, training: dict[str, Any]) -> None:
    world.post(JOBS, by_share(training["id"], 0.7))
    refused = world.post(JOBS, by_share(training["id"], 0.5))
    told = refused.json()
    assert (refused.status_code, told["error"]["code"]) == (403, "privacy_budget_exceeded")
    assert told["error"]["param"] == "privacy.share"
    assert 0.29 < told["largest_share"] < 0.31
    assert told["largest_epsilon"] > 0
    estimate = world.post(ESTIMATE, by_share(training["id"], 0.5)).json()
    assert (estimate["fits"], estimate["largest_share"]) == (False, told["largest_share"])
    assert estimate["privacy"]["main_order"] is False
    assert told["share_left"] == shown(world, training)["share_left"]
    too_large = world.post(JOBS, by_share(training["id"], round(told["largest_share"] + 1e-5, 6)))
    assert too_large.status_code == 403
    assert world.post(JOBS, by_share(training["id"], told["largest_share"])).status_code == 201
    browser = Browser(world, world.keys["one"]["analyst"])
    for price, words in (({"share": "50 %"}, "<dd>50 %</dd>"), ({"epsilon": "7"}, "<dd>epsilon 7</dd>")):
        form = {"training_file": training["id"], "model": "minilm-l6", "steps": "40", "batch_size": "20"} | price
        page = browser.send(Call("POST", f"{DASHBOARD}/estimate", form=form))
        assert (page.status_code, words in page.text) == (403, True), page.text
        assert "Largest share that fits" in page.text
    small = world.post(ESTIMATE, by_share(training["id"], 1e-300))
    told = small.json()
    assert (small.status_code, told["error"]["code"], told["error"]["param"]) == (
        400,
        "share_too_small",
        "privacy.share",
    )
    assert 0 < told["smallest_share"] < 1
    other = world.private_file()["id"]
    assert world.post(ESTIMATE, by_share(other, told["smallest_share"])).json()["fits"] is True


def test_a_sub_limit_bounds_the_largest_share(world: World, training: dict[str, Any]) -> None:
    budget = f"/v1/budgets/{training['budget']}"
    (grant,) = world.get(f"{budget}/grants", "steward").json()["data"]
    world.call("DELETE", f"{budget}/grants/{grant['id']}", "steward")
    world.grant(training["budget"], epsilon=7)
    largest = world.post(ESTIMATE, by_share(training["id"], 0.9)).json()["largest_share"]
    with world.engine("api").connect() as connection:
        held = balance(connection, training["budget"])
    main = held.filter.main
    assert largest == pytest.approx(caps(7, held.delta, held.filter)[main] / held.cap[main], abs=1e-6)
    assert world.post(JOBS, by_share(training["id"], largest)).status_code == 201


def test_nothing_fits_while_a_budget_is_frozen(world: World, training: dict[str, Any]) -> None:
    assert world.post(f"/v1/budgets/{training['budget']}/freeze", {"reason": "r"}, "steward").status_code == 200
    estimate = world.post(ESTIMATE, by_share(training["id"], 0.1)).json()
    assert (estimate["fits"], estimate["jobs_that_fit"]) == (False, 0)
    assert (estimate["largest_share"], estimate["largest_epsilon"]) == (0, 0)


def test_a_limit_that_leaves_the_main_order_nothing_has_no_shares(world: World, training: dict[str, Any]) -> None:
    path = f"/v1/budgets/{training['budget']}"
    assert world.post(f"{path}/limit", {"epsilon": 0.2, "reason": "r"}, "steward").status_code == 200
    with world.engine("api").connect() as connection:
        held = balance(connection, training["budget"])
    assert held.cap[held.filter.main] <= 0 < max(held.cap)
    budget = shown(world, training)
    assert (budget["share_spent"], budget["share_left"]) == (None, 0)
    quiet = {"method": {"type": "lora", "lora": {"hyperparameters": {"steps": 1, "batch_size": 1}}}}
    estimate = world.post(ESTIMATE, job_body(training["id"], 0.199, **quiet)).json()
    assert (estimate["fits"], estimate["privacy"]["main_order"], estimate["privacy"]["share"]) == (True, False, None)
    made = world.post(JOBS, job_body(training["id"], 0.199, **quiet)).json()
    assert (made["privacy"]["share"], made["privacy"]["main_order"]) == (None, False)
    refused = world.post(ESTIMATE, by_share(training["id"], 1, **quiet)).json()
    assert (refused["error"]["code"], refused["smallest_share"]) == ("share_too_small", None)


@pytest.mark.parametrize("share", ["NaN", "Infinity", "0", "-0.1", "1.0000001", "true", '"0.25"', "1e-300", "[]"])
def test_a_share_that_is_none_is_refused_by_its_name(world: World, training: dict[str, Any], share: str) -> None:
    body = json.dumps(by_share(training["id"], None)).replace('"share": null', f'"share": {share}')
    for path in (ESTIMATE, JOBS):
        answer = world.call("POST", path, "analyst", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert "privacy.share" in answer.text or share in ("NaN", "Infinity")  # no JSON at all
        assert "unknown field" not in answer.text


def test_epsilon_and_share_together_are_refused(world: World, training: dict[str, Any]) -> None:
    for path in (ESTIMATE, JOBS):
        answer = world.post(path, job_body(training["id"], privacy={"epsilon": 1, "share": 0.25, "delta": 1e-4}))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "privacy.share")
        assert "send one of them" in answer.json()["detail"]
    one = job_body(training["id"], privacy={"epsilon": None, "share": 0.25, "delta": 1e-4})
    assert world.post(ESTIMATE, one).json()["privacy"]["share"] <= 0.25


def test_the_description_tells_what_each_method_takes(world: World) -> None:
    described = world.client.get("/openapi.json").json()["components"]["schemas"]["MethodChoice"]["properties"]
    assert set(method_names()) | {"supervised", "type"} == set(described)
    for name in method_names():
        method, block = get_method(name), described[name]["properties"]
        assert {*method.Options.model_fields, "hyperparameters"} == set(block)
        assert set(block["hyperparameters"]["properties"]) == set(method.Request.model_fields)
    assert described["zo"]["properties"]["hyperparameters"]["properties"]["directions"]["default"] == "auto"


def test_jobs_of_the_first_versions_read_well_and_have_their_twins(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    """Rows as they were before jobs had phases and shares: queued, running and finished."""
    done = finish(world, training, at_work)
    running, queued = (world.submit(training["id"], epsilon)["id"] for epsilon in (1.0, 0.5))
    lease = work.claim(at_work, running, "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, 4)
    at_work.execute(sa.update(job).where(job.c.id == running).values(status="running"))
    measured = Measured("lora", "classification", "a processor", 128, 100.0, 1, 1)
    record(at_work, base_models(world.settings).usable["minilm-l6"], measured)
    at_work.commit()
    before = {id: world.get(f"{JOBS}/{id}").json() for id in (done, running, queued)}
    assert before[running]["estimated_finish"] > 0
    for id in before:
        as_it_was(world, id)
    assert {j["id"] for j in world.get(JOBS).json()["data"] if j["error"] is None} >= set(before)
    browser = Browser(world, world.keys["one"]["analyst"])
    for id, whole in before.items():
        now = world.get(f"{JOBS}/{id}").json()
        assert now["error"] is None
        assert now["progress"] == whole["progress"]
        assert abs((now["estimated_finish"] or 0) - (whole["estimated_finish"] or 0)) <= 60
        privacy = whole["privacy"]
        unknown = {"share", "share_used", "main_order", "asked", "asked_for", "share_left_before", "share_left_after"}
        phase = privacy["phases"][0] | {"share": None}
        assert now["privacy"] == privacy | {name: None for name in unknown} | {"phases": [phase]}
        assert world.get(f"{JOBS}/{id}/events").status_code == 200
        page = browser.send(Call("GET", f"{DASHBOARD}/jobs/{id}"))
        assert page.status_code == 200
        assert "None" not in page.text
    twin = world.post(ESTIMATE, job_body(training["id"])).json()["finished_twin"]
    assert twin == done
    assert world.post(JOBS, job_body(training["id"])).json()["error"]["code"] == "same_job_finished"
    assert world.post(f"{JOBS}/{queued}/cancel").json()["status"] == "cancelled"


def test_a_job_of_a_version_whose_heads_were_all_random_is_its_like_s_twin(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    done = finish(world, training, at_work)
    with past_triggers(world.database) as c:
        c.execute(
            sa.text("UPDATE job SET method = method #- '{lora,hyperparameters,views}' WHERE id = :id"), {"id": done}
        )
    assert world.post(ESTIMATE, job_body(training["id"])).json()["finished_twin"] == done  # pictures had one view
    with past_triggers(world.database) as c:
        c.execute(
            sa.text("UPDATE job SET method = method #- '{lora,hyperparameters,head}' WHERE id = :id"), {"id": done}
        )
    assert world.post(ESTIMATE, job_body(training["id"])).json()["finished_twin"] == done


def as_it_was(world: World, id: str) -> None:
    """The row in the words of the first versions."""
    with past_triggers(world.database) as connection:
        row = connection.execute(sa.select(job).where(job.c.id == id)).one()
        old = {"budget", "unit", "epsilon", "delta", "noise_multiplier", "sample_rate", "steps_planned"}
        old |= {"budget_left_before", "budget_left_after", "guarantee"}
        plan = dict(row.plan)
        (phase,) = plan.pop("phases")
        mechanism = phase.pop("mechanism")
        plan |= {name: value for name, value in phase.items() if name not in ("name", "trains", "estimator")}
        plan |= {name: mechanism[name] for name in ("sample_rate", "noise_multiplier")}
        privacy = {name: row.privacy[name] for name in old}
        connection.execute(sa.update(job).where(job.c.id == id).values(plan=plan, privacy=privacy))


def test_a_request_without_a_share_is_the_one_that_it_was_before_there_were_shares() -> None:
    """Its Idempotency-Key is known by the digest of these bytes."""
    body = NewJob.model_validate({"model": "m", "training_file": "file-1", "privacy": {"epsilon": 2}})
    assert json.loads(body.model_dump_json())["privacy"] == {"epsilon": 2.0, "delta": None}
