"""Grants over HTTP: who may use a budget, how much of it, and what waits for a steward."""

import json
import time
from typing import Any

import pytest
import sqlalchemy as sa

from domain.jobs.expiry import end_expired
from domain.kit.tables import job, keeper_watch
from ledger.tables import budget_grant, reservation
from tests.api.conftest import JOBS, PROJECT, World, job_body, wait_for
from tests.api.test_jobs import finish

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture
def hidden(world: World) -> dict[str, Any]:
    """A private file with a budget of 8 that no analyst may use yet."""
    return world.upload(granted=False).json()


def second_steward(world: World) -> str:
    """The name of a tenant entry whose steward is another key of tenant one."""
    made = world.post("/v1/keys", {"name": "second", "scopes": ["steward"]}, "admin").json()
    world.keys["second"] = world.keys["one"] | {"steward": made["key"]}
    return "second"


def test_a_grant_opens_a_budget_and_its_revocation_closes_it(world: World, hidden: dict[str, Any]) -> None:
    budget, body = f"/v1/budgets/{hidden['budget']}", job_body(hidden["id"], 1.0)
    closed = [("GET", budget), ("GET", f"/v1/files/{hidden['id']}"), ("GET", f"{budget}/grants")]
    assert {world.call(*call, "analyst").status_code for call in closed} == {404}
    assert world.post(f"{JOBS}/estimate", body).status_code == world.post(JOBS, body).status_code == 404
    grant = world.grant(hidden["budget"])
    assert (grant["project"], grant["key"], grant["epsilon"], grant["revoked_at"]) == (PROJECT, None, None, None)
    assert {world.call(*call, "analyst").status_code for call in closed} == {200}
    made = world.submit(hidden["id"], 1.0)
    assert hidden["budget"] in world.get("/v1/budgets").text
    revoked = world.call("DELETE", f"{budget}/grants/{grant['id']}", "steward").json()
    assert revoked["revoked_at"]
    assert world.call("DELETE", f"{budget}/grants/{grant['id']}", "steward").json() == revoked
    assert {world.call(*call, "analyst").status_code for call in closed} == {404}
    assert world.post(JOBS, job_body(hidden["id"], 1.1)).status_code == 404
    assert world.get(f"{JOBS}/{made['id']}").status_code == 404
    assert world.get(f"{JOBS}/{made['id']}", "steward").json()["status"] == "queued"  # it goes on
    kinds = [e["kind"] for e in world.get(f"{budget}/entries", "auditor").json()["data"]]
    assert kinds == ["open", "records", "grant", "reserve", "revoke"]
    assert world.post(f"{budget}/verify", scope="auditor").json()["ok"] is True


def test_a_refused_sub_limit_says_so_and_names_what_fits(world: World, hidden: dict[str, Any]) -> None:
    grant = world.grant(hidden["budget"], epsilon=2)
    first = world.post(JOBS, {k: v for k, v in job_body(hidden["id"]).items() if k != "privacy"}).json()
    assert first["privacy"]["epsilon"] == pytest.approx(2, abs=1e-3)  # all of an untouched grant
    world.post(f"{JOBS}/{first['id']}/cancel")
    world.submit(hidden["id"], 1.5)
    estimate = world.post(f"{JOBS}/estimate", job_body(hidden["id"], 1.9)).json()
    assert (estimate["fits"], estimate["grant"]["id"], estimate["grant"]["epsilon"]) == (False, grant["id"], 2)
    refused = world.post(JOBS, job_body(hidden["id"], 1.9))
    problem = refused.json()
    assert (refused.status_code, problem["error"]["code"]) == (403, "grant_limit_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert "the grant's sub-limit" in problem["detail"]
    assert problem["grant"] == grant["id"]
    assert 0 < problem["largest_epsilon"] == estimate["largest_epsilon"] < 1.9
    assert problem["grant_left"] < 0.6 < 6 < problem["budget_left"]
    world.submit(hidden["id"], problem["largest_epsilon"])
    assert world.post(JOBS, job_body(hidden["id"], 3.0), "admin").status_code == 201  # the budget has room
    (shown,) = world.get(f"/v1/budgets/{hidden['budget']}/grants").json()["data"]
    assert shown["epsilon_left"] < 0.2
    assert shown["epsilon_reserved"] > 1.5


def test_a_share_of_the_budget_is_what_its_jobs_together_may_take(world: World, hidden: dict[str, Any]) -> None:
    grant = world.grant(hidden["budget"], share=0.25)
    assert (grant["share"], grant["share_left"], grant["epsilon"], grant["epsilon_left"]) == (0.25, 0.25, None, None)
    unpriced = {k: v for k, v in job_body(hidden["id"]).items() if k != "privacy"}
    estimate = world.post(f"{JOBS}/estimate", unpriced).json()
    assert estimate["privacy"]["share"] == pytest.approx(0.25, abs=1e-4)  # all of an untouched grant
    assert (estimate["grant"]["share"], estimate["grant"]["epsilon"]) == (0.25, None)
    made = [world.post(JOBS, unpriced | {"privacy": {"share": share}}).json() for share in (0.1, 0.05)]
    (shown,) = world.get(f"/v1/budgets/{hidden['budget']}/grants").json()["data"]
    taken = sum(job["privacy"]["share"] for job in made)
    assert shown["share_reserved"] == pytest.approx(taken, abs=3e-6)
    assert shown["share_left"] == pytest.approx(0.25 - taken, abs=3e-6)
    budget = world.get(f"/v1/budgets/{hidden['budget']}", "steward").json()
    assert budget["share_left"] == pytest.approx(1 - taken, abs=3e-6)
    estimate = world.post(f"{JOBS}/estimate", unpriced | {"privacy": {"share": 0.2}}).json()
    assert (estimate["fits"], estimate["largest_share"]) == (False, shown["share_left"])
    refused = world.post(JOBS, unpriced | {"privacy": {"share": 0.2}})
    problem = refused.json()
    assert (refused.status_code, problem["error"]["code"]) == (403, "grant_limit_exceeded")
    assert "a share of 0.25" in problem["detail"]
    assert (problem["grant"], problem["grant_share_left"]) == (grant["id"], shown["share_left"])
    world.post(JOBS, unpriced | {"privacy": {"share": problem["largest_share"]}, "allow_duplicate": True}).json()
    (full,) = world.get(f"/v1/budgets/{hidden['budget']}/grants").json()["data"]
    assert full["share_left"] < 1e-4
    # A job that another order of the budget would take has nothing to stand on here.
    assert world.post(f"{JOBS}/estimate", job_body(hidden["id"], 0.5)).json()["fits"] is False
    assert world.post(f"/v1/budgets/{hidden['budget']}/verify", scope="auditor").json()["ok"] is True


def test_a_limit_that_leaves_the_main_order_nothing_leaves_no_share(world: World) -> None:
    budget = world.post("/v1/budgets", {"name": "b", "epsilon": 8, "delta": 1e-5}, "steward").json()["id"]
    world.post(f"/v1/budgets/{budget}/limit", {"epsilon": 0.5, "reason": "r"}, "steward")
    assert world.get(f"/v1/budgets/{budget}", "steward").json()["share_left"] == 0
    refused = world.post(f"/v1/budgets/{budget}/grants", {"project": PROJECT, "share": 0.5}, "steward")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "share")


def test_a_job_outside_what_a_grant_is_for_is_refused_by_field(world: World, hidden: dict[str, Any]) -> None:
    grant = world.grant(hidden["budget"], methods=["bitfit", "lora"], models=["minilm-l6"], most_steps=60)
    assert (grant["methods"], grant["models"], grant["most_steps"]) == (["bitfit", "lora"], ["minilm-l6"], 60)
    body = job_body(hidden["id"], 1.0)
    full = {"type": "full", "full": {"hyperparameters": {"steps": 40}}}
    long = {"type": "lora", "lora": {"hyperparameters": {"steps": 61}}}
    for change, param, words in (
        ({"method": full}, "method.type", "bitfit, lora"),
        ({"method": long}, "hyperparameters.steps", "at most 60 steps; this one has 61"),
    ):
        for path in (JOBS, f"{JOBS}/estimate"):
            refused = world.post(path, body | change)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["param"]) == (403, "not_in_grant", param), refused.text
            assert words in error["message"]
    assert world.post(JOBS, body).status_code == 201
    assert world.post(JOBS, body | {"method": full}, "admin").status_code == 201  # a steward's needs no grant


def verified_once(world: World) -> bool:
    done = sa.select(keeper_watch.c.finished_at).where(keeper_watch.c.duty == "verification")
    with world.engine("superuser").connect() as connection:
        return connection.execute(done).scalar_one_or_none() is not None


def test_a_grant_that_has_ended_shows_nothing_and_approves_nothing(world: World, hidden: dict[str, Any]) -> None:
    budget, soon = f"/v1/budgets/{hidden['budget']}", int(time.time()) + 900
    grant = world.grant(hidden["budget"], expires_at=soon, approval_above=1)
    assert grant["expires_at"] == soon
    queued, waiting = world.submit(hidden["id"], 0.5), world.submit(hidden["id"], 1.5)
    wait_for(lambda: verified_once(world))  # which would find what is changed here, and freeze the budget
    with world.engine("superuser").begin() as connection:  # a quarter of an hour later
        connection.exec_driver_sql("SET session_replication_role = replica")
        ended = sa.update(budget_grant).where(budget_grant.c.id == grant["id"])
        connection.execute(ended.values(expires_at=sa.func.date_trunc("second", sa.func.now())))
    for path in (budget, f"/v1/files/{hidden['id']}", f"{budget}/grants", f"{JOBS}/{queued['id']}"):
        assert world.get(path).status_code == 404
    assert world.post(JOBS, job_body(hidden["id"], 0.4)).status_code == 404
    assert hidden["budget"] not in world.get("/v1/budgets").text
    refused = world.post(f"{JOBS}/{waiting['id']}/approve", scope="steward")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "grant_ended")
    assert world.get(f"{JOBS}/{queued['id']}", "steward").json()["status"] == "queued"  # it goes on
    world.grant(hidden["budget"], share=0.5)  # which makes way for it
    assert world.post(JOBS, job_body(hidden["id"], 0.4)).status_code == 201
    shown = {one["id"]: one for one in world.get(f"{budget}/grants", "steward").json()["data"]}
    assert shown[grant["id"]]["revoked_at"] is not None


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"project": None}, 400, "invalid_request", "key"),
        ({"key": "key_x"}, 400, "invalid_request", "key"),
        ({"project": None, "key": "key_" + "0" * 32}, 404, "not_found", "key"),
        ({"project": "a b"}, 400, "invalid_request", "project"),
        ({"project": "cardiolgy"}, 400, "unknown_project", "project"),
        ({"epsilon": 9}, 400, "invalid_request", "epsilon"),
        ({"epsilon": 0.01}, 400, "epsilon_too_small", "epsilon"),
        ({"epsilon": -1}, 400, "invalid_request", "epsilon"),
        ({"approval_above": 0}, 400, "invalid_request", "approval_above"),
        ({"share": 0}, 400, "invalid_request", "share"),
        ({"share": 1.5}, 400, "invalid_request", "share"),
        ({"share": float("nan")}, 400, "invalid_request", None),
        ({"share": 0.5, "epsilon": 2}, 400, "invalid_request", "share"),
        ({"expires_at": 1_700_000_000}, 400, "invalid_request", "expires_at"),
        ({"models": []}, 400, "invalid_request", "models"),
        ({"models": ["minilm-l7"]}, 400, "invalid_request", "models"),
        ({"methods": ["lora", "lorra"]}, 400, "invalid_request", "methods"),
        ({"most_steps": 0}, 400, "invalid_request", "most_steps"),
        ({"spent": []}, 400, "invalid_request", "spent"),
    ],
)
def test_bad_grants_are_refused_by_field(
    world: World, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    budget = world.post("/v1/budgets", {"name": "b", "epsilon": 8, "delta": 1e-5}, "steward").json()["id"]
    sent = json.dumps({"project": PROJECT} | change)  # NaN among them, as Python's own writer sends it
    headers = {"content-type": "application/json"}
    answer = world.call("POST", f"/v1/budgets/{budget}/grants", "steward", content=sent, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
        status,
        code,
        param,
    ), answer.text
    if "smallest_epsilon" in answer.json():
        least = {"project": PROJECT, "epsilon": answer.json()["smallest_epsilon"]}
        assert world.post(f"/v1/budgets/{budget}/grants", least, "steward").status_code == 201
        again = world.post(f"/v1/budgets/{budget}/grants", least, "steward")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "already_granted")


def test_a_large_job_waits_for_a_steward_who_did_not_submit_it(world: World, hidden: dict[str, Any]) -> None:
    other, path = second_steward(world), f"/v1/budgets/{hidden['budget']}"
    world.grant(hidden["budget"])
    rules = {"approval_above": 2, "queue_days": 3, "reason": "large jobs are looked at"}
    assert world.post(f"{path}/rules", rules, "analyst").status_code == 403
    assert world.post(f"{path}/rules", rules, "steward").json()["approval_above"] == 2
    assert world.post(f"{JOBS}/estimate", job_body(hidden["id"], 2.0)).json()["needs_approval"] is False
    assert world.post(f"{JOBS}/estimate", job_body(hidden["id"], 2.1)).json()["needs_approval"] is True
    small = world.submit(hidden["id"], 2.0)
    assert (small["status"], small["status_detail"]) == ("queued", None)
    large = world.submit(hidden["id"], 2.1)
    assert (large["status"], large["status_detail"], large["queue_position"]) == (
        "queued",
        "waiting_for_approval",
        None,
    )
    with world.engine("admin").connect() as connection:
        hinted = sa.select(job.c.id).where(job.c.hinted_at.is_not(None), job.c.id.in_([small["id"], large["id"]]))
        assert connection.execute(hinted).scalars().all() == [small["id"]]
    assert world.post(f"{JOBS}/{large['id']}/approve").status_code == 403
    assert world.post(f"{JOBS}/{large['id']}/approve", scope="steward").json()["status_detail"] is None
    again = world.post(f"{JOBS}/{large['id']}/approve", scope="steward")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "not_waiting")
    own = world.post(JOBS, job_body(hidden["id"], 2.2), "admin").json()
    refused = world.post(f"{JOBS}/{own['id']}/approve", scope="admin")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "own_job")
    assert world.post(f"{JOBS}/{own['id']}/approve", {"reason": "fine"}, "steward", tenant=other).status_code == 200
    dropped = world.submit(hidden["id"], 2.3)
    left = world.get(path, "steward").json()["epsilon_reserved"]
    ended = world.post(f"{JOBS}/{dropped['id']}/reject", {"reason": "too much for this"}, "steward").json()
    assert (ended["status"], ended["status_detail"]) == ("cancelled", "rejected")
    assert world.get(path, "steward").json()["epsilon_reserved"] < left
    assert "too much for this" in world.get(f"{JOBS}/{dropped['id']}/events").text
    assert world.post(f"{JOBS}/{dropped['id']}/approve", scope="steward").status_code == 409
    assert world.post(f"{path}/verify", scope="auditor").json()["ok"] is True


def test_a_job_that_nobody_begins_in_time_ends_as_expired(world: World, hidden: dict[str, Any]) -> None:
    world.grant(hidden["budget"])
    made = [world.submit(hidden["id"], 1.0, queue_days=days)["id"] for days in (1, 30)]
    with world.engine("admin").begin() as connection:
        days = sa.func.round(sa.extract("epoch", reservation.c.starts_by - reservation.c.created_at) / 86400)
        found = connection.execute(sa.select(reservation.c.job_id, days).where(reservation.c.job_id.in_(made))).all()
        assert {id: int(n) for id, n in found} == {made[0]: 1, made[1]: 7}  # at most the budget's
        late = sa.update(reservation).where(reservation.c.job_id == made[0])
        connection.execute(late.values(starts_by=sa.func.now()))
    assert made[0] in end_expired(world.engine("api"))
    ended = world.get(f"{JOBS}/{made[0]}").json()
    assert (ended["status"], ended["status_detail"]) == ("cancelled", "expired")
    assert ended["finished_at"]
    assert "no worker began" in world.get(f"{JOBS}/{made[0]}/events").json()["data"][0]["message"]
    assert world.get(f"{JOBS}/{made[1]}").json()["status"] == "queued"


def test_the_same_job_is_not_paid_for_twice_unless_asked(world: World, hidden: dict[str, Any]) -> None:
    world.grant(hidden["budget"])
    body = job_body(hidden["id"])
    with world.engine("worker").connect() as at_work:
        done = finish(world, hidden, at_work)
    assert world.post(f"{JOBS}/estimate", body).json()["finished_twin"] == done
    refused = world.post(JOBS, body | {"seed": 5})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "same_job_finished")
    assert (refused.json()["job"], refused.headers["x-should-retry"]) == (done, "false")
    assert world.get(refused.json()["adapter"]).status_code == 200
    for change in ({"privacy": {"epsilon": 1.0}}, {"method": {"type": "lora", "lora": {"r": 2}}}):
        assert world.post(f"{JOBS}/estimate", body | change).json()["finished_twin"] is None
    with world.engine("superuser").begin() as connection:  # the base model had other weights then
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.execute(sa.update(job).where(job.c.id == done).values(model_revision="0" * 64))
    assert world.post(f"{JOBS}/estimate", body).json()["finished_twin"] is None
    with world.engine("superuser").begin() as connection:  # nor does a job of an earlier version say which it had
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.execute(sa.update(job).where(job.c.id == done).values(model_revision=None))
    headers = {"Idempotency-Key": "twice"}
    asked = [world.post(JOBS, body | {"allow_duplicate": True}, headers=headers).json() for _ in range(2)]
    assert asked[0]["finished_twin"] == done
    assert asked[0]["id"] == asked[1]["id"] != done
