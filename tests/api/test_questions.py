"""What only a steward can say: until then a file exists for nobody else. Public and private texts know of each other."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from domain.kit.tables import file, question
from ledger.tables import entry
from tests.api.conftest import JOBS, World, job_body
from tests.api.test_variants import INLINE, as_csv, sentences

pytestmark = pytest.mark.usefixtures("quick_checks")

SEEDS = count(1000)
OTHERS = {"answer": "different_population", "reason": "another ward, one template"}
PUBLIC = {"purpose": "evals", "labels": "publish"}


def edited(texts: list[str]) -> list[str]:
    return [f"{text} Seen again today." for text in texts]


def put(world: World, texts: list[str], form: dict[str, str] = INLINE, **options: Any) -> dict[str, Any]:
    name, content, _ = as_csv(texts)
    answer = world.upload(content, form, name=name, **options)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


@pytest.fixture
def texts() -> list[str]:
    return sentences(next(SEEDS))


@pytest.fixture
def first(world: World, texts: list[str]) -> dict[str, Any]:
    return put(world, texts)


def decisions(world: World, budget: str) -> list[tuple[str, str]]:
    with world.engine("superuser").connect() as c:
        found = c.execute(sa.select(entry.c.detail).where(entry.c.budget_id == budget, entry.c.kind == "overlap"))
        return [(detail["other_budget"], detail["reason"]) for detail in found.scalars()]


def test_a_file_that_waits_exists_for_stewards_alone(world: World, texts: list[str], first: dict[str, Any]) -> None:
    before = seen(world, "analyst")
    waiting = put(world, edited(texts))
    assert (waiting["status"], waiting["budget"], waiting["report"]["kept"]) == ("uploaded", None, len(texts))
    asked = waiting["question"]
    assert asked["budgets"] == [{"budget": first["budget"], "records": len(texts), "files": [first["id"]]}]
    assert asked["answers"] == ["same_population", "different_population"]
    assert seen(world, "analyst") == before
    for scope in ("analyst", "auditor"):
        for path in (waiting["id"], f"{waiting['id']}/content", f"{waiting['id']}/report", "questions"):
            assert world.get(f"/v1/files/{path}", scope).status_code in (403, 404)
        answer = {"answer": "same_population"}
        assert world.post(f"/v1/files/{waiting['id']}/answer", answer, scope).status_code == 403
    shown = world.get(f"/v1/files/{waiting['id']}", "steward").json()
    assert (shown["status"], shown["status_details"]) == ("uploaded", asked["message"])
    assert world.get(f"/v1/files/{waiting['id']}/report", "steward").json() == waiting["report"]
    assert asked in world.get("/v1/files/questions", "steward").json()["data"]
    assert world.get("/v1/files/questions", "steward", tenant="two").json()["data"] == []
    assert world.post(f"/v1/files/{waiting['id']}/answer", OTHERS, "steward", tenant="two").status_code == 404
    refused = world.post(JOBS, job_body(waiting["id"]), "steward")
    assert refused.status_code in (403, 404)
    assert not any(text in json.dumps(asked) for text in texts)


def test_the_same_people_keep_their_budget(world: World, texts: list[str], first: dict[str, Any]) -> None:
    waiting = put(world, edited(texts))
    made = world.post(f"/v1/files/{waiting['id']}/answer", {"answer": "same_population"}, "steward").json()
    assert (made["id"], made["status"], made["budget"]) == (waiting["id"], "processed", first["budget"])
    content = world.get(f"/v1/files/{waiting['id']}/content", "steward").text
    assert [json.loads(line)["text"] for line in content.splitlines()] == edited(texts)
    again = world.post(f"/v1/files/{waiting['id']}/answer", OTHERS, "steward")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_answered")
    assert put(world, edited(texts))["budget"] == first["budget"]  # now it holds these


def test_other_people_get_their_own_and_it_is_on_record(world: World, texts: list[str], first: dict[str, Any]) -> None:
    waiting = put(world, edited(texts))
    without = world.post(f"/v1/files/{waiting['id']}/answer", {"answer": "different_population"}, "steward")
    assert without.status_code == 400
    made = world.post(f"/v1/files/{waiting['id']}/answer", OTHERS, "steward").json()
    assert made["budget"] not in (None, first["budget"])
    assert decisions(world, made["budget"]) == [(first["budget"], OTHERS["reason"])]
    assert decisions(world, first["budget"]) == [(made["budget"], OTHERS["reason"])]
    for id in (first["budget"], made["budget"]):
        assert world.post(f"/v1/budgets/{id}/verify", scope="auditor").json()["ok"] is True
    # Both come again: each where it was, without another question.
    assert put(world, texts)["budget"] == first["budget"]
    assert put(world, edited(texts))["budget"] == made["budget"]


def test_what_is_said_beforehand_is_not_asked(world: World, texts: list[str], first: dict[str, Any]) -> None:
    same = put(world, edited(texts), INLINE | {"overlap": "same_population"})
    assert (same["budget"], same["budget_inherited"], same["question"]) == (first["budget"], True, None)
    others = {"overlap": "different_population", "overlap_reason": "another ward"}
    apart = put(world, [f"Yesterday: {text}" for text in texts], INLINE | others)
    assert apart["budget"] != first["budget"]
    assert decisions(world, first["budget"]) == [(apart["budget"], "another ward")]


def test_an_honest_second_upload_lands_where_the_first_did(
    world: World, texts: list[str], first: dict[str, Any]
) -> None:
    """Also after another file with some of its records was decided to be of other people."""
    mixed = texts[:3] + sentences(next(SEEDS))
    form = INLINE | {"overlap": "different_population", "overlap_reason": "phrases that all wards use"}
    other = put(world, mixed, form)
    assert other["budget"] != first["budget"]
    assert put(world, texts)["budget"] == first["budget"]
    assert put(world, mixed)["budget"] == other["budget"]
    named = {k: v for k, v in INLINE.items() if "[" not in k} | {"budget": first["budget"]}
    assert put(world, texts, named)["budget"] == first["budget"]


def test_a_withdrawn_file_leaves_nothing(world: World, texts: list[str], first: dict[str, Any]) -> None:
    waiting = put(world, edited(texts))
    assert world.call("DELETE", f"/v1/files/{waiting['id']}", "steward").status_code == 200
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/report")):
        assert world.call(method, f"/v1/files/{waiting['id']}{path}", "steward").status_code == 404
    assert world.post(f"/v1/files/{waiting['id']}/answer", OTHERS, "steward").status_code == 404
    assert put(world, edited(texts))["question"] is not None  # it was under no budget


def test_two_stewards_answer_at_once(world: World, texts: list[str], first: dict[str, Any]) -> None:
    waiting = put(world, edited(texts))
    answers = [{"answer": "same_population"}, OTHERS] * 2
    with ThreadPoolExecutor(4) as pool:
        path = f"/v1/files/{waiting['id']}/answer"
        codes = list(pool.map(lambda body: world.post(path, body, "steward").status_code, answers))
    assert sorted(codes)[0] == 200
    assert codes.count(200) == 1
    assert set(codes) <= {200, 404, 409}
    with world.engine("superuser").connect() as c:
        assert c.execute(sa.select(sa.func.count()).where(file.c.id == waiting["id"])).scalar_one() == 1
        said = c.execute(sa.select(question.c.answer).where(question.c.file_id == waiting["id"])).scalar_one()
    budget = world.get(f"/v1/files/{waiting['id']}", "steward").json()["budget"]
    assert (budget == first["budget"]) == (said == "same_population")


def test_the_same_upload_six_times_at_once_is_one_budget(world: World, texts: list[str]) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: put(world, texts), range(6)))
    assert len({one["budget"] for one in made}) == 1
    assert [one["budget_inherited"] for one in made].count(False) == 1
    assert all(one["question"] is None for one in made)


# Public and private.


def test_private_texts_do_not_become_public_without_a_word(
    world: World, texts: list[str], first: dict[str, Any]
) -> None:
    for change in (list, edited):
        waiting = put(world, change(texts), PUBLIC)
        assert (waiting["status"], waiting["question"]["answers"]) == ("uploaded", ["publish"])
        assert [one["budget"] for one in waiting["question"]["budgets"]] == [first["budget"]]
        for path in ("", "/content"):
            assert world.get(f"/v1/files/{waiting['id']}{path}", "analyst").status_code == 404
        wrong = world.post(f"/v1/files/{waiting['id']}/answer", {"answer": "same_population"}, "steward")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (409, "wrong_answer")
        assert world.post(f"/v1/files/{waiting['id']}/answer", {"answer": "publish"}, "steward").status_code == 400
    answer = {"answer": "publish", "reason": "a published case collection"}
    made = world.post(f"/v1/files/{waiting['id']}/answer", answer, "steward").json()
    assert (made["status"], made["purpose"], made["budget"]) == ("processed", "evals", None)
    assert world.get(f"/v1/files/{waiting['id']}/content", "analyst").status_code == 200
    with world.engine("superuser").connect() as c:
        row = c.execute(sa.select(question).where(question.c.file_id == waiting["id"])).one()
    assert (row.answer, row.reason) == ("publish", "a published case collection")


def test_a_private_file_is_told_what_of_it_is_public(world: World, texts: list[str]) -> None:
    public = put(world, texts, PUBLIC)
    assert (public["status"], public["question"]) == ("processed", None)
    made = put(world, [*texts[:5], *edited(texts[5:9]), *sentences(next(SEEDS))])
    assert made["public_overlap"] == {public["id"]: 9}
    assert made["report"]["kept"] == len(texts) + 9  # nothing is taken out
    world.call("DELETE", f"/v1/files/{public['id']}", "steward")
    assert put(world, texts)["public_overlap"] == {}


def seen(world: World, scope: str) -> Any:
    """Everything that a key can fetch, without what names a single file, key or time."""
    found = {}
    for path in ("/v1/files", "/v1/budgets", JOBS, "/v1/models"):
        answer = world.get(path, scope)
        found[path] = (answer.status_code, answer.text)
        for budget in answer.json()["data"] if path == "/v1/budgets" else ():
            for more in ("", "/grants", "/entries"):
                one = world.get(f"/v1/budgets/{budget['id']}{more}", scope)
                found[f"{budget['id']}{more}"] = (one.status_code, one.text if one.is_success else "")
    return found
