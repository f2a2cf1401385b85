"""Jobs: estimated for nothing, submitted with their reservation or refused, cancelled in every state."""

import concurrent.futures
import hashlib
import json
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.jobs.quality import quality
from domain.jobs.releases import Result, publish
from domain.jobs.resolving import Wanted, plan_job
from domain.jobs.submit import submit
from domain.kit.refusals import OverBudget
from domain.kit.tables import job
from domain.models.allow_list import base_models
from domain.storage.blobs import open_store, put_bytes
from ledger import work
from ledger.reserve import settle
from tests.api.conftest import JOBS, World, job_body

pytestmark = pytest.mark.usefixtures("quick_checks")
ADAPTER = bytes(range(256)) * 40


def balance(world: World, training: dict[str, Any]) -> dict[str, Any]:
    return world.get(f"/v1/budgets/{training['budget']}").json()


def test_an_estimate_is_what_the_job_then_is_and_costs_nothing(world: World, training: dict[str, Any]) -> None:
    body = job_body(training["id"], 2.5, seed=3)
    before = balance(world, training)
    estimate = world.post(f"{JOBS}/estimate", body).json()
    assert balance(world, training) == before
    assert estimate["fits"] is True
    assert 2.49 < estimate["privacy"]["epsilon"] <= 2.5
    made = world.post(JOBS, body).json()
    assert (made["privacy"], made["method"]) == (estimate["privacy"], estimate["method"])
    after = balance(world, training)
    assert after["epsilon_reserved"] == pytest.approx(estimate["privacy"]["epsilon"], abs=1e-6)
    assert after["epsilon_left"] == pytest.approx(estimate["privacy"]["budget_left_after"], abs=1e-6)


def test_a_job_has_every_field_that_clients_know(world: World, training: dict[str, Any]) -> None:
    made = world.submit(training["id"], suffix="first", metadata={"team": "blue"}, seed=11)
    nulls = {"finished_at", "estimated_finish", "fine_tuned_model", "trained_tokens", "validation_file", "error"}
    assert all(made[name] is None for name in nulls | {"integrations", "status_detail"})
    assert (made["status"], made["queue_position"] >= 1, made["result_files"]) == ("queued", True, [])
    assert made["progress"] == {"step": 0, "total_steps": 40, "fraction": 0.0}
    assert (made["seed"], made["suffix"], made["metadata"]) == (11, "first", {"team": "blue"})
    entry = world.get(f"/v1/budgets/{training['budget']}/entries", "auditor").json()["data"][-1]
    receipt = {"budget": training["budget"], "seq": entry["seq"], "hash": entry["hash"]}
    assert made["receipt"] == receipt | {"signature": made["receipt"]["signature"]}
    assert (entry["kind"], entry["job"]) == ("reserve", made["id"])
    listed = world.get(JOBS, params={"metadata[team]": "blue"}).json()["data"]
    assert [j["id"] for j in listed] == [made["id"]]
    assert made["id"] not in world.get(JOBS, params={"metadata": "null"}).text
    with world.engine("admin").connect() as connection:  # the hint went out after the commit
        assert connection.execute(sa.select(job.c.hinted_at).where(job.c.id == made["id"])).scalar_one()


def test_text_that_no_database_holds_is_refused(world: World, open_file: dict[str, Any]) -> None:
    body = json.dumps(job_body(open_file["id"], metadata={"a": "b"}))
    headers = {"content-type": "application/json"}
    for text in (r"\ud800", r"\u0000"):
        answer = world.call("POST", JOBS, "analyst", content=body.replace('"b"', f'"{text}"'), headers=headers)
        assert answer.status_code == 400, answer.text
    deep = world.call("POST", JOBS, "analyst", content=body.replace('"b"', "[" * 10**5), headers=headers)
    assert deep.status_code == 400


def test_an_untouched_budget_is_the_default_epsilon(world: World, training: dict[str, Any]) -> None:
    first = world.post(JOBS, {"model": "minilm-l6", "training_file": training["id"]}).json()
    assert first["privacy"]["epsilon"] == pytest.approx(8, abs=1e-4)
    assert first["method"]["lora"]["hyperparameters"]["steps"] == 60  # of the preset
    second = world.post(JOBS, {"model": "minilm-l6", "training_file": training["id"], "seed": 2})
    assert (second.status_code, second.json()["error"]["param"]) == (400, "privacy.epsilon")


def test_a_refusal_names_the_largest_epsilon_and_that_fits(world: World, training: dict[str, Any]) -> None:
    first = world.submit(training["id"], 7.0)
    refused = world.post(JOBS, job_body(training["id"], 6.0))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "privacy_budget_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    largest = refused.json()["largest_epsilon"]
    assert 0 < largest < 6
    assert world.post(JOBS, job_body(training["id"], round(largest + 0.01, 4))).status_code == 403
    second = world.submit(training["id"], largest)
    assert [j["receipt"]["seq"] for j in (first, second)] == [4, 5]


def test_the_database_refuses_when_the_service_does_not(world: World, training: dict[str, Any]) -> None:
    """SQLSTATE 23514 by the CHECK on the budget, with the service's own check off; nothing of the job is left."""
    world.submit(training["id"], 7.0)
    body = job_body(training["id"], 6.0)
    with TestClient(create_app(world.settings, check_first=False)) as client:
        headers = {"Authorization": f"Bearer {world.keys['one']['analyst']}"}
        refused = client.post(JOBS, json=body, headers=headers)
    assert (refused.status_code, refused.json()["refused_by"]) == (403, "database")
    assert refused.json()["largest_epsilon"] < 6
    wanted = Wanted("minilm-l6", training["id"], None, "lora", {}, {}, 6.0, None, None, None, {})
    store = open_store(world.settings, world.engine("api"))
    with world.engine("api").connect() as connection:
        viewer = world.viewer("steward")
        planned = plan_job(connection, viewer, base_models(world.settings), wanted)
        with pytest.raises(OverBudget) as caught:
            submit(connection, planned, store, job_id="ftjob-x", viewer=viewer, check_first=False)
        cause = caught.value.__cause__.__cause__.orig  # type: ignore[union-attr]
        assert (cause.sqlstate, cause.diag.constraint_name) == ("23514", "never_overspent")
        assert connection.execute(sa.select(job.c.id).where(job.c.id == "ftjob-x")).first() is None


def test_an_idempotency_key_makes_one_job(world: World, training: dict[str, Any]) -> None:
    body, headers = job_body(training["id"], 1.0), {"Idempotency-Key": "k-1"}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: world.post(JOBS, body, headers=headers), range(4)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert sum("idempotent-replayed" in a.headers for a in answers) == 3
    other = world.post(JOBS, body | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    entries = world.get(f"/v1/budgets/{training['budget']}/entries", "auditor").json()["data"]
    assert [e["kind"] for e in entries] == ["open", "records", "grant", "reserve"]


def test_a_refused_job_leaves_its_idempotency_key_free(world: World, training: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "k-2"}
    assert world.post(JOBS, job_body(training["id"], 9.0), headers=headers).status_code == 403
    assert world.post(JOBS, job_body(training["id"], 1.0), headers=headers).status_code == 201


def test_a_broker_that_is_away_fails_no_request(world: World, training: dict[str, Any]) -> None:
    settings = world.settings.model_copy(
        update={"broker_url": type(world.settings.broker_url)("redis://127.0.0.1:1/0")}
    )
    with TestClient(create_app(settings)) as client:
        headers = {"Authorization": f"Bearer {world.keys['one']['analyst']}"}
        made = client.post(JOBS, json=job_body(training["id"]), headers=headers)
        assert made.status_code == 201
        ready = client.get("/readyz").json()
        assert (ready["status"], ready["checks"]["broker"]) == ("ok", "warning")
    with world.engine("admin").connect() as connection:
        hinted = sa.select(job.c.hinted_at).where(job.c.id == made.json()["id"])
        assert connection.execute(hinted).scalar_one() is None


def test_epochs_are_steps_by_public_arithmetic(world: World, open_file: dict[str, Any]) -> None:
    """Passes over the declared 400 records on average, in batches as asked for or as usual."""
    for numbers, steps in (({"n_epochs": 3, "batch_size": 20}, 60), ({"n_epochs": 0.1, "batch_size": 20}, 2)):
        made = world.post(f"{JOBS}/estimate", job_body(open_file["id"]) | _numbers(numbers)).json()
        assert made["privacy"]["steps_planned"] == steps
        assert made["method"]["lora"]["hyperparameters"]["steps"] == steps
    usual = world.post(f"{JOBS}/estimate", job_body(open_file["id"]) | _numbers({"n_epochs": 2})).json()
    assert usual["privacy"]["steps_planned"] == 2 * 400 / usual["method"]["lora"]["hyperparameters"]["batch_size"]
    auto = world.post(f"{JOBS}/estimate", job_body(open_file["id"]) | _numbers({"n_epochs": "auto"})).json()
    assert auto["privacy"]["steps_planned"] == 200


def _numbers(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    return {"method": {"type": "lora", "lora": {"hyperparameters": hyperparameters}}}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"privacy": {"epsilon": 0}}, "privacy.epsilon"),
        ({"privacy": {"epsilon": -1}}, "privacy.epsilon"),
        ({"privacy": {"epsilon": "NaN"}}, "privacy.epsilon"),
        ({"privacy": {"epsilon": 101}}, "privacy.epsilon"),
        ({"privacy": {"epsilon": 0.01}}, "privacy.epsilon"),
        ({"privacy": {"epsilon": 1, "delta": 1e-9}}, "privacy.delta"),
        ({"privacy": {"epsilon": 1, "spent": 0}}, "privacy.spent"),
        ({"model": "gpt-9"}, "model"),
        ({"model": "../etc"}, "model"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": {"type": "lora", "lora": {"rank": 8}}}, "method.lora.rank"),
        ({"method": {"type": "lora", "lora": {"r": "x"}}}, "method.lora.r"),
        ({"method": {"type": "lora", "lora": {"target_modules": ["a\x00"]}}}, None),
        ({"method": {"type": "lora", "lora": {"target_modules": ["qurey"]}}}, "method.lora.target_modules"),
        (
            {"method": {"type": "lora", "lora": {"hyperparameters": {"batch_size": 401}}}},
            "method.lora.hyperparameters.batch_size",
        ),
        (
            {"method": {"type": "lora", "lora": {"hyperparameters": {"steps": "many"}}}},
            "method.lora.hyperparameters.steps",
        ),
        ({"hyperparameters": {"n_epochs": 0}}, None),
        ({"hyperparameters": {"n_epochs": "three"}}, None),
        ({"hyperparameters": {"n_epochs": 3, "steps": 4}}, None),
        ({"hyperparameters": {"learning_rate_multiplier": 3}}, None),
        ({"status": "succeeded"}, "status"),
        ({"seed": 2**63}, "seed"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"integrations": [{"type": "wandb"}]}, "integrations"),
    ],
)
def test_bad_jobs_are_refused_by_field(
    world: World, open_file: dict[str, Any], change: dict[str, Any], param: str | None
) -> None:
    for path in (JOBS, f"{JOBS}/estimate"):
        answer = world.post(path, job_body(open_file["id"]) | change)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param, answer.text
    assert "lora" in answer.text or param != "method.type"
    assert "minilm-l6" in answer.text or answer.json()["error"]["code"] != "unknown_model"


@pytest.fixture(scope="module")
def open_file(world: World, quick_checks: None) -> dict[str, Any]:
    return world.private_file()


def test_each_file_has_its_place(world: World, open_file: dict[str, Any]) -> None:
    evals = world.upload(b"text,label\na,0\n", {"purpose": "evals"}).json()["id"]
    strange = world.upload(b"text,label\na,2\n", {"purpose": "evals"}).json()["id"]
    for change, param, code in [
        ({"training_file": evals}, "training_file", "wrong_purpose"),
        ({"validation_file": open_file["id"]}, "validation_file", "wrong_purpose"),
        ({"validation_file": strange}, "validation_file", "labels_differ"),
    ]:
        error = world.post(f"{JOBS}/estimate", job_body(open_file["id"]) | change).json()["error"]
        assert (error["param"], error["code"]) == (param, code)
    assert world.post(f"{JOBS}/estimate", job_body(open_file["id"], validation_file=evals)).status_code == 200


def test_cancel_while_queued_gives_everything_back(world: World, training: dict[str, Any]) -> None:
    made = world.submit(training["id"])
    ended = world.post(f"{JOBS}/{made['id']}/cancel").json()
    assert (ended["status"], ended["queue_position"]) == ("cancelled", None)
    assert ended["finished_at"] >= ended["created_at"]
    assert balance(world, training)["epsilon_left"] == 8
    again = world.post(f"{JOBS}/{made['id']}/cancel")
    assert (again.status_code, again.json()) == (200, ended)
    assert len(world.get(f"{JOBS}/{made['id']}/events").json()["data"]) == 2


def test_cancel_under_a_lease_asks_the_worker(world: World, training: dict[str, Any], at_work: sa.Connection) -> None:
    made = world.submit(training["id"])
    lease = work.claim(at_work, made["id"], "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, 2)
    at_work.execute(sa.update(job).where(job.c.id == made["id"]).values(status="running"))
    at_work.commit()
    for _ in range(2):
        asked = world.post(f"{JOBS}/{made['id']}/cancel").json()
        assert (asked["status"], asked["status_detail"]) == ("running", "cancelling")
    assert asked["progress"]["step"] == 2
    assert work.renew(at_work, lease, 60) is True
    work.drop(at_work, lease)  # it dies before it can settle
    at_work.commit()
    ended = world.post(f"{JOBS}/{made['id']}/cancel").json()
    assert (ended["status"], ended["status_detail"]) == ("cancelled", None)
    messages = [e["message"] for e in world.get(f"{JOBS}/{made['id']}/events").json()["data"]]
    assert [m.split()[0] for m in messages] == ["Cancelled.", "Cancelling:", "Queued."]
    left = balance(world, training)
    assert left["epsilon_reserved"] == 0
    assert 0 < left["epsilon_spent"] < made["privacy"]["epsilon"]  # two steps stay charged


def test_cancel_after_the_end_is_refused_for_good(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    done, broken = finish(world, training, at_work), world.submit(training["id"], 1.0)["id"]
    lease = work.claim(at_work, broken, "w", 60)
    assert lease is not None
    settle(at_work, broken, "failed", lease.fence)
    error = {"code": "worker_lost", "message": "the worker was lost"}
    at_work.execute(sa.update(job).where(job.c.id == broken).values(status="failed", error=error))
    at_work.commit()
    for id, status in ((done, "succeeded"), (broken, "failed")):
        answer = world.post(f"{JOBS}/{id}/cancel")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
        assert world.get(f"{JOBS}/{id}").json()["status"] == status
    told = world.get(f"{JOBS}/{broken}").json()["error"]
    assert told == error | {"param": None, "fault": "service", "hint": told["hint"]}


def test_what_a_failure_cost_is_the_ledgers_word_whatever_its_code(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    charged = ("Nothing was charged.", "The whole reservation is charged")
    for steps in (0, 2):
        made = world.submit(training["id"], 1.0 + steps)["id"]
        lease = work.claim(at_work, made, "w", 60)
        assert lease is not None
        if steps:
            work.authorise(at_work, lease, 0, steps)
            at_work.commit()
        settle(at_work, made, "failed", lease.fence)
        for code in ("training_failed", "out_of_memory", "time_limit", "worker_lost", "something_new"):
            error = {"code": code, "message": "it failed"}
            at_work.execute(sa.update(job).where(job.c.id == made).values(status="failed", error=error))
            at_work.commit()
            hint = world.get(f"{JOBS}/{made}").json()["error"]["hint"]
            assert [hint.count(words) for words in charged] == [int(not steps), int(bool(steps))], (code, hint)


def finish(
    world: World,
    training: dict[str, Any],
    at_work: sa.Connection,
    keys: str = "one",
    tenant: str = "tenant_one",
    measured: dict[str, Any] | None = None,
) -> str:
    """What a worker does to a job, without the training. measured: the quality that it found."""
    answer = world.post(JOBS, job_body(training["id"]), tenant=keys)
    assert answer.status_code == 201, answer.text
    made: str = answer.json()["id"]
    stored = put_bytes(open_store(world.settings, world.engine("api")), f"results/{made}", ADAPTER)
    lease = work.claim(at_work, made, "w", 60)
    assert lease is not None
    work.authorise(at_work, lease, 0, 40)
    sha256 = hashlib.sha256(ADAPTER).hexdigest()
    publish(at_work, lease, tenant, [Result("adapter", "adapter.zip", len(ADAPTER), sha256, stored)], measured)
    at_work.commit()
    return made


def test_how_good_a_result_is_stands_in_the_job_the_list_and_the_event_of_its_release(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    validation = {"file": "file-public", "accuracy": 0.75, "standard_error": 0.05, "evaluated": 80, "majority": 0.5}
    validation |= {"per_class": {"0": {"records": 40, "right": 0.7}, "1": {"records": 40, "right": 0.8}}}
    found = quality(validation | {"untrained": {"accuracy": 0.4875}})
    done = finish(world, training, at_work, measured=found)
    shown = world.get(f"{JOBS}/{done}").json()["quality"]
    assert (shown["metric"], shown["value"], shown["standard_error"], shown["evaluated"]) == (
        "accuracy",
        0.75,
        0.05,
        80,
    )
    assert (shown["untrained"], shown["baseline"], shown["file"]) == (0.4875, 0.5, "file-public")
    assert shown["per_class"]["1"] == {"records": 40, "right": 0.8}
    assert next(j for j in world.get(JOBS).json()["data"] if j["id"] == done)["quality"] == shown
    (event,) = [e for e in world.get(f"{JOBS}/{done}/events").json()["data"] if e["name"] == "job.succeeded"]
    assert event["data"] == {"quality": found}
    # A model that diverged has none, and what is no number beside one that is stays out: JSON could not be written.
    diverged = {"file": "file-public", "perplexity": float("nan"), "standard_error": float("nan")}
    for lost in (diverged, diverged | {"perplexity": 1e304}):
        assert quality(lost) is None
    wide = quality(diverged | {"perplexity": 1e99, "standard_error": float("inf"), "untrained": diverged})
    assert wide is not None
    assert (wide["value"], wide["standard_error"], wide["baseline"]) == (1e99, None, None)
    far = finish(world, world.private_file(), at_work, measured=wide)
    assert world.get(f"{JOBS}/{far}").json()["quality"]["value"] == 1e99
    # Of a job without a public file, of one that runs, and of figures that a worker's login made up, there is none.
    assert world.get(f"{JOBS}/{finish(world, world.private_file(), at_work)}").json()["quality"] is None
    assert world.submit(training["id"], 0.5)["quality"] is None
    for lie in ({"metric": "joy"}, {"value": "NaN"}, {"per_class": {"a": 3}}):
        job_id = finish(world, world.private_file(), at_work, measured=found | lie)
        assert (world.get(f"{JOBS}/{job_id}").json()["quality"], lie) == (None, lie)
        assert world.get(f"{JOBS}/{job_id}").json()["status"] == "succeeded"


def test_an_adapter_is_downloaded_whole_or_in_part(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    path = f"{JOBS}/{finish(world, training, at_work)}"
    made = world.get(path).json()
    assert (made["status"], made["progress"]["fraction"]) == ("succeeded", 1.0)
    whole = world.get(f"{path}/adapter")
    sha256 = hashlib.sha256(ADAPTER).hexdigest()
    assert (whole.content, whole.headers["x-content-sha256"], whole.headers["etag"]) == (ADAPTER, sha256, f'"{sha256}"')
    assert whole.headers["content-disposition"].startswith("attachment;")
    for wanted, expected in [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10000-", slice(10000, None)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=5-99999999", slice(5, None)),
    ]:
        part = world.get(f"{path}/adapter", headers={"Range": wanted})
        assert (part.status_code, part.content) == (206, ADAPTER[expected]), wanted
    assert part.headers["content-range"] == f"bytes 5-{len(ADAPTER) - 1}/{len(ADAPTER)}"
    for outside in ("bytes=99999-", "bytes=-0", "bytes=5-4"):
        answer = world.get(f"{path}/adapter", headers={"Range": outside})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(ADAPTER)}"), outside
    stale = world.get(f"{path}/adapter", headers={"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, ADAPTER)
    assert world.get(f"{path}/adapter", headers={"If-None-Match": f'"{sha256}"'}).status_code == 304
    (result,) = made["result_files"]
    assert world.get(f"/v1/files/{result}/content").content == ADAPTER
    assert world.get(f"/v1/files/{result}").json()["bytes"] == len(ADAPTER)


def test_there_is_no_adapter_before_the_end(world: World, open_file: dict[str, Any]) -> None:
    made = world.submit(open_file["id"], 1.0)
    answer = world.get(f"{JOBS}/{made['id']}/adapter")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_adapter")
    assert world.get(f"{JOBS}/{made['id']}/checkpoints").json()["data"] == []
