"""Pause and resume as clients see them: harmless to repeat, final where there is nothing to pause."""

from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from domain.kit.tables import job
from ledger import work
from tests.api.conftest import JOBS, World
from tests.api.test_jobs import balance, finish

pytestmark = pytest.mark.usefixtures("quick_checks")


def ask(world: World, id: str, what: str) -> httpx.Response:
    return world.post(f"{JOBS}/{id}/{what}")


def names(world: World, id: str) -> list[str]:
    return [e["name"] for e in world.get(f"{JOBS}/{id}/events", params={"order": "asc"}).json()["data"]]


def test_a_queued_job_is_held_and_let_go_again(world: World, training: dict[str, Any]) -> None:
    first, second = world.submit(training["id"], 1.0), world.submit(training["id"], 1.0, seed=1)
    held = balance(world, training)["epsilon_reserved"]
    for _ in range(2):
        paused = ask(world, first["id"], "pause").json()
        assert (paused["status"], paused["status_detail"], paused["queue_position"]) == ("queued", "paused", None)
    assert world.get(f"{JOBS}/{second['id']}").json()["queue_position"] == second["queue_position"] - 1
    assert balance(world, training)["epsilon_reserved"] == held
    for _ in range(2):
        resumed = ask(world, first["id"], "resume").json()
        assert (resumed["status"], resumed["status_detail"]) == ("queued", None)
        assert resumed["queue_position"] == first["queue_position"]
    assert names(world, first["id"]) == ["job.queued", "job.paused", "job.resumed"]


def test_a_paused_job_is_cancelled_at_once(world: World, training: dict[str, Any]) -> None:
    made = world.submit(training["id"])
    ask(world, made["id"], "pause")
    ended = ask(world, made["id"], "cancel").json()
    assert (ended["status"], ended["status_detail"]) == ("cancelled", None)
    assert balance(world, training)["epsilon_left"] == 8


def test_under_a_lease_the_worker_is_asked(world: World, training: dict[str, Any], at_work: sa.Connection) -> None:
    made = world.submit(training["id"])
    lease = work.claim(at_work, made["id"], "w", 60)
    assert lease is not None
    at_work.execute(sa.update(job).where(job.c.id == made["id"]).values(status="running"))
    at_work.commit()
    for _ in range(2):
        asked = ask(world, made["id"], "pause").json()
        assert (asked["status"], asked["status_detail"]) == ("running", "pausing")
    assert work.renew(at_work, lease, 60) is True
    at_work.commit()
    resumed = ask(world, made["id"], "resume").json()
    assert (resumed["status"], resumed["status_detail"]) == ("running", None)
    assert work.renew(at_work, lease, 60) is False
    at_work.commit()
    ask(world, made["id"], "cancel")
    for what in ("pause", "resume"):
        answer = ask(world, made["id"], what)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_is_ending")
    assert names(world, made["id"]) == ["job.queued", "job.pausing", "job.resumed", "job.cancelling"]


def test_what_has_ended_or_waits_is_refused_for_good(
    world: World, training: dict[str, Any], at_work: sa.Connection
) -> None:
    done, gone = finish(world, training, at_work), world.submit(training["id"], 1.0)["id"]
    ask(world, gone, "cancel")
    for id in (done, gone):
        for what in ("pause", "resume"):
            answer = ask(world, id, what)
            assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
            assert answer.json()["error"]["code"] == "job_has_ended"
    rules = {"approval_above": 0.5, "queue_days": 7, "reason": "r"}
    assert world.post(f"/v1/budgets/{training['budget']}/rules", rules, "steward").status_code == 200
    waits = world.submit(training["id"], 1.0, seed=3)["id"]
    answer = ask(world, waits, "pause")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "waiting_for_approval")
    assert world.get(f"{JOBS}/{waits}").json()["status_detail"] == "waiting_for_approval"
