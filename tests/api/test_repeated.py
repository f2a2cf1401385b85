"""The same request twice, because an answer was lost: one job, one price. What is meant twice says so."""

import concurrent.futures
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from api.jobs.idempotency import SHORTLY
from domain.kit.tables import idempotency
from tests.api.attacks import Browser, Call
from tests.api.conftest import JOBS, World, job_body

pytestmark = pytest.mark.usefixtures("quick_checks")
RETRIED = {"x-stainless-retry-count": "1"}


def reserved(world: World, training: dict[str, Any]) -> int:
    entries = world.get(f"/v1/budgets/{training['budget']}/entries", "auditor").json()["data"]
    return sum(entry["kind"] == "reserve" for entry in entries)


def asked(world: World, body: dict[str, Any], scope: str = "analyst", **headers: str) -> str:
    answer = world.post(JOBS, body, scope, headers=headers)
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


def test_the_same_request_twelve_times_at_once_is_one_job(world: World, training: dict[str, Any]) -> None:
    body = job_body(training["id"], 0.5)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: world.post(JOBS, body), range(12)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert sum(a.headers.get("idempotent-replayed") == "true" for a in answers) == 11
    assert reserved(world, training) == 1


def test_a_request_that_was_refused_leaves_no_note(world: World, training: dict[str, Any]) -> None:
    body = job_body(training["id"], 9.0)
    assert world.post(JOBS, body).status_code == 403
    assert world.post(JOBS, body).status_code == 403
    assert reserved(world, training) == 0


def test_what_is_meant_twice_says_so(world: World, training: dict[str, Any]) -> None:
    body = job_body(training["id"], 0.3)
    first = asked(world, body)
    assert asked(world, body) == first
    meant = [
        asked(world, body | {"allow_duplicate": True}),
        asked(world, body | {"allow_duplicate": True}),
        asked(world, body, **{"Idempotency-Key": "another"}),
        asked(world, body | {"seed": 5}),
        asked(world, body | {"metadata": {"run": "2"}}),
        asked(world, body, "admin"),  # somebody else's key
    ]
    assert len({first, *meant}) == 7
    assert asked(world, body) == first


def test_what_a_client_repeats_by_itself_is_never_meant_twice(world: World, training: dict[str, Any]) -> None:
    body = job_body(training["id"], 0.3, allow_duplicate=True)
    first = asked(world, body)
    second = asked(world, body)
    assert asked(world, body, **RETRIED) == second != first


def test_a_job_that_has_ended_or_was_asked_for_long_ago_is_asked_for_anew(
    world: World, training: dict[str, Any]
) -> None:
    body = job_body(training["id"], 0.3)
    first = asked(world, body)
    world.post(f"{JOBS}/{first}/cancel")
    second = asked(world, body)
    with world.engine("superuser").begin() as connection:
        just = sa.func.now() - SHORTLY + timedelta(seconds=30)
        connection.execute(sa.update(idempotency).values(created_at=just))
    assert asked(world, body) == second != first
    with world.engine("superuser").begin() as connection:
        connection.execute(sa.update(idempotency).values(created_at=sa.func.now() - SHORTLY - timedelta(seconds=1)))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        late = set(pool.map(lambda _: asked(world, body), range(12)))
    assert len(late) == 1
    assert late.isdisjoint({first, second})


def test_a_form_that_was_loaded_anew_finds_the_job(world: World, training: dict[str, Any]) -> None:
    browser = Browser(world, world.keys["one"]["analyst"])
    form = {"model": "minilm-l6", "training_file": training["id"], "method": "lora", "epsilon": "0.3", "steps": "40"}
    numbers = ["a" * 32, "b" * 32, "b" * 32]
    places = [
        browser.send(Call("POST", "/dashboard/estimate", form=form | {"once": once})).headers["location"]
        for once in numbers
    ]
    assert len(set(places)) == 1
    again = browser.send(Call("POST", "/dashboard/estimate", form=form | {"once": "b" * 32, "allow_duplicate": "true"}))
    assert again.headers["location"] != places[0]
    assert reserved(world, training) == 2


def test_a_submission_costs_a_statement_more_for_it(world: World, training: dict[str, Any]) -> None:
    said: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    asked(world, job_body(training["id"], 0.2))
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        asked(world, job_body(training["id"], 0.1))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert len([one for one in said if "idempotency" in one]) == 1, said
