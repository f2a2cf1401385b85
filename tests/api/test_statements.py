"""Statements over HTTP: who may read which, what stands in them, and that nothing is made up."""

import hashlib
import json
import re
import zipfile
from io import BytesIO
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jsonschema_rs import validator_for

from domain.jobs.releases import Result, publish
from domain.storage.blobs import open_store, put_bytes
from dpcore.terms import accounting, odds
from ledger import policy, work
from ledger.reserve import settle
from tests.api.conftest import JOBS, World
from tests.api.federated import accepted, federated
from tests.api.test_jobs import finish

pytestmark = pytest.mark.usefixtures("quick_checks")
WORDS = {"intended_use": "triage of letters, ward 3", "suffix": "letters", "metadata": {"team": "blue"}}


def ended(
    world: World, at_work: sa.Connection, job: dict[str, Any], steps: int = 40, *, report: dict[str, Any] | None = None
) -> str:
    """What a worker does to a job that waits, without the training. report: what it writes down."""
    id: str = job["id"]
    store, row = open_store(world.settings, world.engine("api")), []
    for kind, name, data in (
        ("adapter", "adapter.zip", archive()),
        *((("report", "privacy_report.json", json.dumps(report).encode()),) if report is not None else ()),
    ):
        stored = put_bytes(store, f"results/{id}-{kind}", data)
        row.append(Result(kind, name, len(data), hashlib.sha256(data).hexdigest(), stored))
    lease = work.claim(at_work, id, "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, steps)
    publish(at_work, lease, "tenant_one", row)
    at_work.commit()
    return id


def archive() -> bytes:
    """An adapter, as far as anybody here looks."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(zipfile.ZipInfo("adapter_config.json"), "{}")
        made.writestr(zipfile.ZipInfo("adapter_model.safetensors"), b"weights")
    return buffer.getvalue()


def written_down(job: dict[str, Any]) -> dict[str, Any]:
    """What a worker of this version writes down of a job of one phase."""
    (phase,) = job["privacy"]["phases"]
    part = accounting.Part(phase["sample_rate"], phase["steps"], phase["noise_multiplier"])
    losses = accounting.losses((part,))
    found = odds.of_losses(losses)
    data = archive()
    contents = {
        name: hashlib.sha256(zipfile.ZipFile(BytesIO(data)).read(name)).hexdigest()
        for name in zipfile.ZipFile(BytesIO(data)).namelist()
    }
    return {
        "privacy": {"epsilon_pld_this_job_alone": accounting.epsilon_of_losses(losses, job["privacy"]["delta"])},
        "odds_this_job_alone": {"found": odds.curve(found), "best_accuracy": found.best_accuracy()},
        "versions": {"tacit": "0.1.0", "torch": "2.13.0"},
        "base_model_source": None,
        "adapter": {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "files": contents,
        },
    }


def stated(world: World, job: str, scope: str = "analyst", **options: Any) -> dict[str, Any]:
    answer = world.get(f"{JOBS}/{job}/statement", scope, **options)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def job(world: World, training: dict[str, Any]) -> dict[str, Any]:
    return world.submit(training["id"], 2.0, **WORDS)


def test_who_may_read_which(world: World, training: dict[str, Any], job: dict[str, Any]) -> None:
    budget = training["budget"]
    wanted = {
        f"{JOBS}/{job['id']}/statement": {"analyst": 200, "steward": 200, "auditor": 403},
        f"{JOBS}/{job['id']}/evidence": {"analyst": 200, "steward": 200, "auditor": 403},
        f"/v1/budgets/{budget}/statement": {"analyst": 403, "steward": 200, "auditor": 200},
        f"/v1/budgets/{budget}/evidence": {"analyst": 403, "steward": 200, "auditor": 200},
        "/v1/statements/schemas": {"analyst": 200, "steward": 200, "auditor": 200},
    }
    for path, scopes in wanted.items():
        for scope, status in scopes.items():
            assert world.get(path, scope).status_code == status, (path, scope)
            if "schemas" not in path:
                theirs = world.get(path, scope, tenant="two")
                assert theirs.status_code == (404 if status == 200 else 403), (path, scope)
    made = world.post("/v1/keys", {"name": "outsider", "scopes": ["analyst"]}, "admin").json()
    world.keys["outsiders"] = world.keys["one"] | {"analyst": made["key"]}
    assert world.get(f"{JOBS}/{job['id']}/statement", tenant="outsiders").status_code == 404


def test_a_statement_is_as_its_schema_says(world: World, training: dict[str, Any], job: dict[str, Any]) -> None:
    schemas = world.get("/v1/statements/schemas").json()
    validator_for(schemas["job"]).validate(stated(world, job["id"]))
    budget = world.get(f"/v1/budgets/{training['budget']}/statement", "auditor").json()
    validator_for(schemas["budget"]).validate(budget)


def test_numbers_come_from_the_ledger_and_the_plan(
    world: World, training: dict[str, Any], at_work: sa.Connection, job: dict[str, Any]
) -> None:
    ended(world, at_work, job, report=written_down(job))
    said, receipts = stated(world, job["id"]), world.get(f"{JOBS}/{job['id']}/receipts").json()
    charged = [int(amount) for amount in receipts[-1]["fields"][7].strip("{}").split(",")]
    assert said["claim"]["cost"] == charged
    assert 0 < said["claim"]["epsilon"] <= 2.0
    assert said["claim"]["epsilon_by_losses"] < said["claim"]["epsilon"]
    assert said["account"]["before"]["share_used"] == 0.0
    assert said["account"]["after"]["share_used"] == said["claim"]["share"]
    (phase,) = said["phases"]
    assert (phase["steps_planned"], phase["steps_authorised"], phase["steps_charged"]) == (40, 40, 40)
    assert phase["noise_multiplier"] == job["privacy"]["noise_multiplier"]
    assert said["odds"]["found_at_one_percent"] < said["budget_odds"]["found_at_one_percent"]
    assert said["odds"]["sentence"] in said["summary"]
    assert said["releases"][0]["contents"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert [one["number"] for one in said["points"]] == list(range(1, 23))
    assert said["purpose"]["intended_use"] == WORDS["intended_use"]
    assert said["purpose"]["metadata"] == WORDS["metadata"]
    assert said["versions"]["made_with"] == {"tacit": "0.1.0", "torch": "2.13.0"}


def test_all_times_are_to_the_minute_and_nothing_else_is_told(
    world: World, training: dict[str, Any], at_work: sa.Connection, job: dict[str, Any]
) -> None:
    other = world.submit(training["id"], 1.0, intended_use="somebody else's", suffix="theirs")
    ended(world, at_work, job, report=written_down(job))
    text = json.dumps(stated(world, job["id"]))
    times = re.findall(r"\d{4}-\d\d-\d\dT[0-9:.]+Z?", text)
    assert times
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", time) for time in times)
    page = world.get(f"{JOBS}/{job['id']}/statement?format=html").text
    for word in (other["id"], "somebody else's", "theirs", "fence", "row number"):
        assert word not in text
        assert word not in page


def test_an_analysts_evidence_shows_lines_of_others_as_hashes_alone(
    world: World, training: dict[str, Any], at_work: sa.Connection, job: dict[str, Any]
) -> None:
    other = world.submit(training["id"], 1.0)
    ended(world, at_work, job, report=written_down(job))
    theirs = world.get(f"{JOBS}/{other['id']}/receipts").json()[0]
    for scope, bare in (("analyst", True), ("steward", False)):
        answer = world.get(f"{JOBS}/{job['id']}/evidence", scope)
        files = zipfile.ZipFile(BytesIO(answer.content))
        text = "".join(files.read(name).decode() for name in files.namelist())
        lines = {one["seq"]: one for one in json.loads(files.read("entries.json"))["entries"]}
        assert lines[theirs["seq"]]["hash"] == theirs["hash"]
        assert (lines[theirs["seq"]]["fields"] is None) is bare
        assert (theirs["fields"][4] in text) is not bare
        assert answer.headers["x-content-sha256"] == hashlib.sha256(answer.content).hexdigest()


def test_the_page_has_no_script_and_asks_nobody_for_anything(world: World, job: dict[str, Any]) -> None:
    answer = world.get(f"{JOBS}/{job['id']}/statement?format=html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"<script|<link|<img|@import|url\(|https?://|\son\w+=|\sstyle=", answer.text)


def test_words_of_a_caller_are_words_on_the_page(world: World, training: dict[str, Any]) -> None:
    bad = "<script>alert(1)</script>\"'"
    job = world.submit(training["id"], 1.0, intended_use=bad, metadata={bad[:30]: bad})
    text = world.get(f"{JOBS}/{job['id']}/statement?format=html").text
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_what_became_of_a_job_is_said(world: World, training: dict[str, Any], at_work: sa.Connection) -> None:
    waiting, stopped, failed = (world.submit(training["id"], 1.0) for _ in range(3))
    held = stated(world, waiting["id"])
    assert held["standing"]["sentence"].startswith("The job has not begun")
    assert (held["claim"]["epsilon"], held["odds"], held["dates"]["settled"]) == (0.0, None, None)
    assert held["claim"]["epsilon_reserved"] > 0.9

    world.post(f"{JOBS}/{waiting['id']}/pause")
    assert stated(world, waiting["id"])["standing"]["sentence"].startswith(
        "The job is paused. Nothing is charged so far"
    )

    lease = work.claim(at_work, stopped["id"], "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, 10)
    at_work.commit()
    running = stated(world, stopped["id"])
    assert running["standing"]["status"] == "queued" or running["phases"][0]["steps_authorised"] == 10
    settle(at_work, stopped["id"], "cancelled", fence=lease.fence)
    at_work.commit()
    partly = stated(world, stopped["id"])
    assert partly["phases"][0]["steps_charged"] == 10
    assert 0 < partly["claim"]["epsilon"] < 1.0
    assert partly["releases"] == []

    lease = work.claim(at_work, failed["id"], "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, 10)
    settle(at_work, failed["id"], "failed", fence=lease.fence)
    at_work.execute(sa.text("UPDATE job SET status = 'failed' WHERE id = :id"), {"id": failed["id"]})
    at_work.commit()
    whole = stated(world, failed["id"])
    assert "failed after its first step" in whole["standing"]["sentence"]
    assert (whole["phases"][0]["steps_authorised"], whole["phases"][0]["steps_charged"]) == (10, 40)
    assert whole["claim"]["cost"] == [40 * cost for cost in whole["phases"][0]["step_cost"]]

    never = world.submit(training["id"], 1.0)
    world.post(f"{JOBS}/{never['id']}/cancel")
    said = stated(world, never["id"])
    assert said["standing"]["sentence"] == "The job was cancelled. No result was released; nothing was charged."
    assert said["claim"]["sentence"].startswith("Nothing was charged")


def test_a_freeze_and_a_loss_of_the_promise_that_come_later_are_said(
    world: World, training: dict[str, Any], at_work: sa.Connection, job: dict[str, Any]
) -> None:
    ended(world, at_work, job, report=written_down(job))
    before, budget = stated(world, job["id"]), training["budget"]
    assert (before["account"]["frozen"], before["account"]["within"]) == (False, True)
    world.post(f"/v1/budgets/{budget}/freeze", {"reason": "a complaint"}, "steward")
    frozen = stated(world, job["id"])
    assert any("frozen now" in said and "a complaint" in said for said in frozen["summary"])
    assert frozen["claim"] == before["claim"]
    with world.engine("admin").begin() as connection:
        orders = len(frozen["account"]["filter"]["orders"])
        policy.correct(connection, Ed25519PrivateKey.generate(), budget, [10**14] * orders, "lost in a restore")
    past = stated(world, job["id"])
    assert past["account"]["within"] is False
    assert past["budget_odds"] is None
    assert "does not hold any more" in past["account"]["sentence"]
    assert past["account"]["sentence"] in past["summary"]
    assert past["claim"] == before["claim"]  # what the job itself cost has not changed
    dossier = world.get(f"/v1/budgets/{budget}/statement", "auditor").json()
    assert (dossier["within"], dossier["odds"]) == (False, None)
    assert [one["kind"] for one in dossier["decisions"]][-2:] == ["freeze", "correction"]


def test_a_lowered_limit_leaves_the_claim_at_the_highest(world: World, training: dict[str, Any]) -> None:
    job, budget = world.submit(training["id"], 1.0), training["budget"]
    world.post(f"/v1/budgets/{budget}/limit", {"epsilon": 4, "reason": "stricter"}, "steward")
    account = stated(world, job["id"])["account"]
    assert (account["epsilon"], account["epsilon_claim"]) == (4.0, 8.0)
    assert "(8, " in account["sentence"]


def test_a_job_of_an_earlier_version_says_what_is_not_recorded(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    """It has no report, or one without odds, versions and the adapter's files."""
    bare = finish(world, training, at_work)
    old = ended(world, at_work, world.submit(training["id"], 1.0), report={"privacy": {}, "metrics": {}})
    for job in (bare, old):
        said = stated(world, job)
        assert (said["odds"], said["versions"]["made_with"], said["claim"]["epsilon_by_losses"]) == (None, None, None)
        assert said["releases"][0]["contents"] is None
        assert {one["number"] for one in said["points"] if one["stands"] == "not recorded"} >= {8, 9, 10}
        page = world.get(f"{JOBS}/{job}/statement?format=html").text
        assert page.count("not recorded") >= 4
    # The upload of an earlier version did not write down what it published.
    with world.engine("superuser").begin() as connection:
        connection.execute(sa.text("SET session_replication_role = replica"))
        gone = "UPDATE upload_report SET report = report - 'published' WHERE file_id = :id"
        connection.execute(sa.text(gone), {"id": training["id"]})
    said = stated(world, bare)
    assert (said["domain"]["size_published"], said["domain"]["labels_published"]) == (None, None)
    assert "not recorded" in said["domain"]["sentence"]


def test_what_the_steward_published_by_decision_is_said(world: World, at_work: sa.Connection) -> None:
    named = world.private_file()
    counted = world.private_file(declared_size="count", labels="publish")
    for file, published in ((named, False), (counted, True)):
        domain = stated(world, world.submit(file["id"], 1.0)["id"])["domain"]
        assert (domain["size_published"], domain["labels_published"]) == (published, published)
        assert ("by the steward's decision" in domain["sentence"]) is published
    dossier = world.get(f"/v1/budgets/{counted['budget']}/statement", "steward").json()
    assert [one["size_published"] for one in dossier["files"]] == [True]


def test_who_asked_is_told_to_those_who_may_know(world: World, training: dict[str, Any], job: dict[str, Any]) -> None:
    made = world.post("/v1/keys", {"name": "colleague", "scopes": ["analyst"], "project": "lab"}, "admin").json()
    world.keys["colleagues"] = world.keys["one"] | {"analyst": made["key"]}
    assert stated(world, job["id"])["purpose"]["asked_by"] == "analyst"
    assert stated(world, job["id"], "steward")["purpose"]["asked_by"] == "analyst"
    assert stated(world, job["id"], tenant="colleagues")["purpose"]["asked_by"] is None


def test_an_approval_stands_in_both_statements(world: World, training: dict[str, Any]) -> None:
    rules = {"approval_above": 0.5, "reason": "all are discussed"}
    assert world.post(f"/v1/budgets/{training['budget']}/rules", rules, "steward").status_code == 200
    job = world.submit(training["id"], 1.5)
    assert "waits for a steward" in stated(world, job["id"])["standing"]["sentence"]
    world.post(f"{JOBS}/{job['id']}/approve", {"reason": "agreed on 3 May"}, "steward")
    approval = stated(world, job["id"])["purpose"]["approval"]
    assert (approval["decision"], approval["by"], approval["reason"]) == ("approved", "steward", "agreed on 3 May")
    dossier = world.get(f"/v1/budgets/{training['budget']}/statement", "steward").json()
    (row,) = dossier["jobs"]
    assert row["approval"] == approval
    assert row["held"] is True


def test_a_dossier_lists_all_that_was_released_in_order(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    jobs = [world.submit(training["id"], 1.0, intended_use=f"number {i}") for i in range(3)]
    for one in (jobs[2], jobs[0]):
        ended(world, at_work, one, report=written_down(one))
    world.post(f"{JOBS}/{jobs[1]['id']}/cancel")
    dossier = world.get(f"/v1/budgets/{training['budget']}/statement", "auditor").json()
    assert [one["job"] for one in dossier["jobs"]] == [one["id"] for one in jobs]
    assert [len(one["releases"]) for one in dossier["jobs"]] == [2, 0, 2]
    assert [one["intended_use"] for one in dossier["jobs"]] == ["number 0", "number 1", "number 2"]
    assert [any(one["cost"]) for one in dossier["jobs"]] == [True, False, True]
    places = range(len(dossier["spent"]))
    assert dossier["spent"] == [sum(one["cost"][i] for one in dossier["jobs"]) for i in places]
    assert dossier["share_left"] == pytest.approx(1 - dossier["share_used"], abs=2e-6)
    budget = world.get(f"/v1/budgets/{training['budget']}", "auditor").json()
    assert dossier["head"]["hash"] == budget["ledger"]["hash"]


def test_a_federated_jobs_statement_is_of_its_own_silo(world: World) -> None:
    """What the other tenant pays is the other's to state; neither sees the other's ids."""
    mine, theirs = world.private_file(), world.upload(tenant="two").json()
    parent = federated(world, mine["id"], [accepted(world, mine["id"], theirs["id"])])
    own = next(silo["job"] for silo in parent["silos"] if silo["own"])
    for job in (parent["id"], own):
        said = stated(world, job)
        assert said["account"]["budget"] == mine["budget"]
        assert theirs["id"] not in json.dumps(said)
        assert theirs["budget"] not in json.dumps(said)
        assert world.get(f"{JOBS}/{job}/evidence").status_code == 200
        assert world.get(f"{JOBS}/{job}/statement", "steward", tenant="two").status_code == 404
    for file, tenant in ((mine, "one"), (theirs, "two")):
        dossier = world.get(f"/v1/budgets/{file['budget']}/statement", "steward", tenant=tenant).json()
        assert [one["part"] for one in dossier["jobs"]] == [True]


def test_a_plan_that_is_not_what_was_priced_makes_no_statement(world: World, training: dict[str, Any]) -> None:
    """Every number is one that the ledger charged for."""
    job = world.submit(training["id"], 1.0)
    with world.engine("superuser").begin() as connection:
        connection.execute(sa.text("SET session_replication_role = replica"))
        change = "UPDATE job SET plan = jsonb_set(plan, '{phases,0,mechanism,noise_multiplier}', '9') WHERE id = :id"
        connection.execute(sa.text(change), {"id": job["id"]})
    answer = world.get(f"{JOBS}/{job['id']}/statement")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "statement_unreadable")


def test_rows_that_cannot_be_read_make_no_statement(world: World, training: dict[str, Any]) -> None:
    job = world.submit(training["id"], 1.0)
    with world.engine("superuser").begin() as connection:
        connection.execute(sa.text("SET session_replication_role = replica"))
        connection.execute(sa.text("UPDATE job SET plan = '{\"phases\": 3}' WHERE id = :id"), {"id": job["id"]})
    answer = world.get(f"{JOBS}/{job['id']}/statement")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "statement_unreadable")
