"""The steward's desk: who asks and what for, who decided, what waits; rules that change by themselves, names that change."""

import threading
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from api.jobs.schemas import NewJob
from domain.kit.tables import api_key
from ledger import reserve
from tests.api.attacks import DASHBOARD, Browser, Call
from tests.api.conftest import JOBS, World, job_body, wait_for
from tests.api.test_grants import second_steward

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture
def desk(world: World) -> dict[str, Any]:
    """A private file whose jobs all wait for approval."""
    made = world.private_file()
    rules = {"approval_above": 0.1, "reason": "all are looked at"}
    assert world.post(f"/v1/budgets/{made['budget']}/rules", rules, "steward").status_code == 200
    return made


def colleague(world: World) -> str:
    """A tenant entry whose analyst is another key of tenant one, of the same project."""
    body = {"name": "Bob", "scopes": ["analyst"], "project": "lab"}
    world.keys["colleague"] = world.keys["one"] | {"analyst": world.post("/v1/keys", body, "admin").json()["key"]}
    return "colleague"


def test_a_steward_sees_what_waits_with_who_asks_and_what_for(world: World, desk: dict[str, Any]) -> None:
    use = "triage of incoming letters, ward 3"
    waiting = world.submit(desk["id"], 1.0, intended_use=use)["id"]
    world.post(f"{JOBS}/{world.submit(desk['id'], 0.9)['id']}/cancel")
    listed = world.get(f"{JOBS}?status_detail=waiting_for_approval", "steward").json()["data"]
    (found,) = (job for job in listed if job["training_file"] == desk["id"])
    assert {job["status_detail"] for job in listed} == {"waiting_for_approval"}
    assert (found["id"], found["intended_use"], found["decided_by"]) == (waiting, use, None)
    assert found["submitted_by"] == {"id": world.viewer("analyst").key_id, "name": "analyst"}
    assert world.get(f"{JOBS}?status_detail=waiting", "steward").status_code == 400
    # Analysts of one budget see each other's jobs, and not whose they are.
    bob = colleague(world)
    assert world.get(f"{JOBS}/{waiting}").json()["submitted_by"]["name"] == "analyst"
    assert world.get(f"{JOBS}/{waiting}", tenant=bob).json()["submitted_by"] is None
    assert waiting not in world.get(f"{JOBS}?status_detail=waiting_for_approval", "steward", tenant="two").text


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_who_decided_is_named_wherever_the_decision_shows(world: World, desk: dict[str, Any], decision: str) -> None:
    made = world.submit(desk["id"], 1.0)["id"]
    decided = world.post(f"{JOBS}/{made}/{decision}", {"reason": "as agreed"}, "steward").json()
    steward = {"id": world.viewer("steward").key_id, "name": "steward"}
    said = decided["decided_by"]
    assert said.pop("at") % 60 == 0
    past = {"approve": "approved", "reject": "rejected"}[decision]
    assert said == steward | {"decision": past, "reason": "as agreed"}
    newest = world.get(f"{JOBS}/{made}/events").json()["data"][0]
    assert (newest["name"], newest["message"]) == (f"job.{past}", f"{past.capitalize()} by steward: as agreed")
    assert newest["data"] == {"by": steward, "reason": "as agreed"}
    entries = world.get(f"/v1/budgets/{desk['budget']}/entries?order=desc", "auditor").json()["data"]
    assert (entries[0]["by"], entries[0]["detail"]["reason"]) == (steward, "as agreed")
    assert entries[1]["by"]["name"] == "analyst"  # the charge
    # Who comes later, or after it ended otherwise, is told.
    for late in ("approve", "reject"):
        refused = world.post(f"{JOBS}/{made}/{late}", {"reason": "late"}, "steward").json()
        assert refused["error"]["message"].endswith(f"steward has {past} it")
        assert (refused["decision"], refused["decided_by"], refused["status"]) == (past, steward, 409)
    gone = world.submit(desk["id"], 0.9)["id"]
    world.post(f"{JOBS}/{gone}/cancel")
    refused = world.post(f"{JOBS}/{gone}/{decision}", {"reason": "late"}, "steward")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_waiting")
    assert refused.json()["error"]["message"].endswith("it is cancelled")
    assert world.post(f"/v1/budgets/{desk['budget']}/verify", scope="auditor").json()["ok"] is True


def test_the_page_of_a_job_says_who_asks_what_for_and_who_decided(world: World, desk: dict[str, Any]) -> None:
    made = world.submit(desk["id"], 1.0, intended_use="triage of letters")["id"]
    browser = Browser(world, world.keys["one"]["steward"])
    page = browser.send(Call("GET", f"{DASHBOARD}/jobs/{made}")).text
    asked = ("<dt>Asked by</dt><dd>analyst</dd>", "<dt>What it is for</dt><dd>triage of letters</dd>")
    assert [words in page for words in (*asked, "Approved by", "as agreed")] == [True, True, False, False]
    world.post(f"{JOBS}/{made}/approve", {"reason": "as agreed"}, "steward")
    page = browser.send(Call("GET", f"{DASHBOARD}/jobs/{made}")).text
    fact = page.partition("<dt>Approved by</dt>")[2].partition("</div>")[0]
    assert fact.startswith("<dd>steward, ")
    assert "as agreed" in fact


def test_of_two_stewards_at_once_one_decides_and_the_other_is_told(world: World, desk: dict[str, Any]) -> None:
    """The rejection has read that the job waits when the approval commits."""
    other = second_steward(world)
    made = world.submit(desk["id"], 1.0)["id"]
    answers: dict[str, Any] = {}

    def reject() -> None:
        body = {"reason": "too much"}
        answers["reject"] = world.post(f"{JOBS}/{made}/reject", body, "steward", tenant=other)

    with world.engine("admin").connect() as holder:  # both are stopped at the budget's lock, the approval in front
        holder.execute(sa.text("SELECT FROM ledger.budget WHERE id = :b FOR NO KEY UPDATE"), {"b": desk["budget"]})
        first = threading.Thread(
            target=lambda: answers.update(approve=world.post(f"{JOBS}/{made}/approve", scope="steward"))
        )
        first.start()
        wait_for_locks(world, 1)
        second = threading.Thread(target=reject)
        second.start()
        wait_for_locks(world, 2)
        holder.rollback()
        first.join()
        second.join()
    assert answers["approve"].status_code == 200
    assert (answers["reject"].status_code, answers["reject"].json()["error"]["code"]) == (409, "not_waiting")
    assert answers["reject"].json()["error"]["message"].endswith("steward has approved it")
    shown = world.get(f"{JOBS}/{made}").json()
    assert (shown["status"], shown["status_detail"], shown["decided_by"]["decision"]) == ("queued", None, "approved")
    kinds = [e["kind"] for e in world.get(f"/v1/budgets/{desk['budget']}/entries", "auditor").json()["data"]]
    assert kinds[-2:] == ["reserve", "approve"]  # nothing was settled


def test_a_settlement_that_names_somebody_after_the_approval_ends_no_list(world: World, desk: dict[str, Any]) -> None:
    """As whoever has the login of the API may write one."""
    made = world.submit(desk["id"], 1.0)["id"]
    world.post(f"{JOBS}/{made}/approve", {"reason": "as agreed"}, "steward")
    with world.engine("api").begin() as connection:
        reserve.settle(connection, made, "cancelled", detail={"by": "key_of_nobody", "reason": "r"})
    assert world.get(f"{JOBS}/{made}").json()["decided_by"]["reason"] == "as agreed"
    assert world.get(JOBS, "steward").status_code == 200


def wait_for_locks(world: World, number: int) -> None:
    """Until so many sessions of the API wait for a lock."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with world.engine("superuser").connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        wait_for(lambda: connection.execute(waiting).scalar_one() >= number)


def test_a_budget_may_want_to_know_what_a_job_is_for(world: World, training: dict[str, Any]) -> None:
    path = f"/v1/budgets/{training['budget']}"
    assert world.get(path).json()["require_intended_use"] is False
    rules = {"require_intended_use": True, "reason": "asked for by the council"}
    assert world.post(f"{path}/rules", rules, "steward").json()["require_intended_use"] is True
    body = job_body(training["id"], 1.0)
    assert world.post(f"{JOBS}/estimate", body).json()["needs_intended_use"] is True
    with TestClient(create_app(world.settings, check_first=False)) as by_database:
        for one in (world, replace(world, client=by_database)):
            refused = one.post(JOBS, body)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["param"]) == (400, "intended_use_needed", "intended_use")
    for use in ("", "  ", "x" * 1001, "a\nb", 7):
        assert world.post(JOBS, body | {"intended_use": use}).json()["error"]["param"] == "intended_use"
    said = body | {"intended_use": "a pilot"}
    assert world.post(f"{JOBS}/estimate", said).json()["needs_intended_use"] is False
    assert world.post(JOBS, said).json()["intended_use"] == "a pilot"
    rules = world.get(f"{path}/entries", "auditor").json()["data"][-2]
    assert (rules["kind"], rules["detail"]["require_intended_use"]) == ("rules", "true")
    assert world.post(f"{path}/verify", scope="auditor").json()["ok"] is True


def test_a_request_of_an_earlier_version_is_still_the_same(world: World, training: dict[str, Any]) -> None:
    """Its digest was taken before a job could say what it is for."""
    headers = {"Idempotency-Key": "of-before"}
    made = world.post(JOBS, job_body(training["id"], 1.0), headers=headers).json()
    assert "intended_use" not in NewJob.model_validate(job_body(training["id"], 1.0)).model_dump_json()
    assert world.post(JOBS, job_body(training["id"], 1.0), headers=headers).json()["id"] == made["id"]
    other = world.post(JOBS, job_body(training["id"], 1.0, intended_use="a pilot"), headers=headers)
    assert other.status_code == 422


def test_rules_that_are_left_out_stay(world: World, training: dict[str, Any]) -> None:
    path = f"/v1/budgets/{training['budget']}"

    def rules(**changes: Any) -> tuple[Any, ...]:
        shown = world.post(f"{path}/rules", changes | {"reason": "r"}, "steward").json()
        return shown["approval_above"], shown["queue_days"], shown["require_intended_use"]

    assert rules(approval_above=2) == (2, 7, False)
    assert rules(queue_days=3) == (2, 3, False)
    assert rules(require_intended_use=True) == (2, 3, True)
    assert rules(approval_above=None) == (None, 3, True)
    assert rules(require_intended_use=False, queue_days=None) == (None, 3, False)


def test_a_steward_renames_a_budget_and_nothing_else_of_it(world: World, training: dict[str, Any]) -> None:
    path = f"/v1/budgets/{training['budget']}"
    before = world.get(path, "steward").json()
    assert world.post(f"{path}/rename", {"name": "patients of 2026"}).status_code == 403
    after = world.post(f"{path}/rename", {"name": "patients of 2026"}, "steward").json()
    assert after == before | {"name": "patients of 2026"}
    for name in ("", "a\nb", "x" * 201, None):
        assert world.post(f"{path}/rename", {"name": name}, "steward").json()["error"]["param"] == "name"
    assert world.post(f"{path}/rename", {"name": "mine"}, "steward", tenant="two").status_code == 404
    assert world.get(path).json()["name"] == "patients of 2026"
    logged = world.get("/v1/audit", "auditor").json()["data"]
    assert ("POST /v1/budgets/{budget_id}/rename", training["budget"], 200) in [
        (row["action"], row["target"], row["status"]) for row in logged
    ]
    assert world.post(f"{path}/verify", scope="auditor").json()["ok"] is True


def test_a_budget_gets_another_name_on_its_page(world: World, training: dict[str, Any]) -> None:
    browser, page = Browser(world, world.keys["one"]["steward"]), f"{DASHBOARD}/budgets/{training['budget']}"
    assert f'action="{page}/name"' in browser.send(Call("GET", page)).text
    refused = browser.send(Call("POST", f"{page}/name", form={"name": "x" * 201}))
    assert (refused.status_code, "x" * 201 in refused.text) == (400, True)  # what was typed is still there
    made = browser.send(Call("POST", f"{page}/name", form={"name": "Ward 3 & others"}))
    assert (made.status_code, made.headers["location"]) == (303, page)
    assert world.get(f"/v1/budgets/{training['budget']}").json()["name"] == "Ward 3 & others"


def test_stewards_see_whose_keys_there_are_and_no_secret(world: World) -> None:
    made = world.post("/v1/keys", {"name": "Dr Ann Wu", "scopes": ["analyst"], "project": "ward"}, "admin").json()
    answer = world.get("/v1/keys?limit=100", "steward")
    found = {key["id"]: key for key in answer.json()["data"]}
    assert (found[made["id"]]["name"], found[made["id"]]["project"]) == ("Dr Ann Wu", "ward")
    with world.engine("admin").connect() as connection:
        others = connection.execute(sa.select(api_key.c.id).where(api_key.c.tenant_id != "tenant_one")).scalars().all()
        prefixes = connection.execute(sa.select(api_key.c.prefix)).scalars().all()
    assert not found.keys() & set(others)
    assert not any(prefix in answer.text for prefix in prefixes)
    assert world.get("/v1/keys?limit=100", "admin").json()["data"][0]["prefix"]
    assert world.get("/v1/keys").status_code == world.get("/v1/keys", "auditor").status_code == 403
    for call in (("POST", "/v1/keys"), ("DELETE", f"/v1/keys/{made['id']}"), ("POST", f"/v1/keys/{made['id']}/rotate")):
        body = {"name": "n", "scopes": ["admin"]} if call[1] == "/v1/keys" else {}
        assert world.call(*call, "steward", json=body).status_code == 403
