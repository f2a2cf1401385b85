"""What clients do beside the calls that the reference names: every answer is an answer."""

import dataclasses
import json

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from tests.api.attacks import Browser, Call
from tests.api.conftest import JOBS, PRIVATE, World
from tests.api.test_jobs import ADAPTER, finish

pytestmark = pytest.mark.usefixtures("quick_checks")


def test_downloads_tell_size_and_hash_without_a_body(world: World) -> None:
    with world.engine("worker").connect() as at_work:
        id = finish(world, world.private_file(), at_work)
    (result,) = world.get(f"{JOBS}/{id}").json()["result_files"]
    for path in (f"{JOBS}/{id}/adapter", f"/v1/files/{result}/content"):
        asked, whole = world.call("HEAD", path), world.get(path)
        assert (asked.status_code, asked.content) == (200, b"")
        assert asked.headers["content-length"] == str(len(ADAPTER))
        assert {k: v for k, v in asked.headers.items() if k != "x-request-id"} == {
            k: v for k, v in whole.headers.items() if k != "x-request-id"
        }
    assert world.call("HEAD", f"{JOBS}/ftjob-0/adapter").status_code == 404
    dataset = world.upload(b"text,label\na,1\n", {"purpose": "evals"}).json()["id"]
    assert world.call("HEAD", f"/v1/files/{dataset}/content").content == b""


def test_other_methods_are_refused_with_those_that_there_are(world: World) -> None:
    answer = world.call("PUT", JOBS)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (405, "false")
    assert answer.headers["allow"]
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_base_url_without_v1_or_with_two_is_told_so(world: World) -> None:
    for path in ("/models", "/fine_tuning/jobs/ftjob-1", "/v1/v1/files"):
        answer = world.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert "the base URL of this API ends in /v1, once" in answer.json()["detail"]
    for path in ("/nothing", "/v1/nothing", "/v1/fine_tuning/jobs/ftjob-1"):
        assert "base URL" not in world.get(path).text


def test_a_trailing_slash_leads_to_the_same_place(world: World) -> None:
    for path in (JOBS, "/v1/files", "/v1/models"):
        answer = world.get(f"{path}/", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, f"http://testserver{path}")
        assert world.get(f"{path}/").json() == world.get(path).json()


@pytest.mark.parametrize("path", [JOBS, "/v1/files", "/v1/budgets"])
def test_lists_keep_their_bounds(world: World, path: str) -> None:
    most = 10_000 if path == "/v1/files" else 100
    assert world.get(path, params={"limit": most}).status_code == 200
    for params, param in [
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": most + 1}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"order": "random"}, "order"),
        ({"after": "x" * 201}, "after"),
        ({"after": "\u00e4\0"}, "after"),
        ({"after": ""}, "after"),
    ]:
        answer = world.get(path, params=params)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert world.get(path, params={"nobody": "knows this"}).json() == world.get(path).json()


def test_a_list_that_changes_between_pages_repeats_nothing(world: World) -> None:
    file = world.private_file()
    made = [world.submit(file["id"], 0.5, seed=i)["id"] for i in range(3)]
    page = world.get(JOBS, params={"limit": 1}).json()
    newer = world.submit(file["id"], 0.5, seed=9)["id"]
    rest = world.get(JOBS, params={"after": page["last_id"], "limit": 2}).json()
    assert [page["data"][0]["id"], *(j["id"] for j in rest["data"])] == made[::-1]
    assert newer not in str(rest)


def test_events_of_a_foreign_job_are_none(world: World) -> None:
    mine = world.submit(world.private_file()["id"], 0.5)["id"]
    theirs = world.post(
        JOBS,
        {
            "model": "minilm-l6",
            "training_file": world.upload(tenant="two").json()["id"],
            "privacy": {"epsilon": 1},
        },
        tenant="two",
    ).json()["id"]
    with world.engine("admin").connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM job_event")).scalar_one() >= 2
    for stream in ("false", "true"):
        assert world.get(f"{JOBS}/{theirs}/events", params={"stream": stream}).status_code == 404
        cursor = f"ftevent-{theirs.removeprefix('ftjob-')}-1"
        answer = world.get(f"{JOBS}/{mine}/events", params={"stream": stream, "after": cursor})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_cursor")


def test_a_file_of_conversations_finds_its_task_and_what_is_missing_is_told_at_once(world: World) -> None:
    talk = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "yes"}]}\n'
    rows = "".join(talk % f"hello {i} of habits" for i in range(20)).encode()
    bare = world.upload(rows, {"purpose": "fine-tune"}, name="talk.jsonl")
    assert (bare.status_code, [e["param"] for e in bare.json()["errors"]]) == (400, ["budget", "declared_size"])
    form = {"purpose": "fine-tune", "privacy_budget[epsilon]": "8", "declared_size": "count"}
    made = world.upload(rows, form, name="talk.jsonl")
    assert (made.status_code, made.json()["task"], made.json()["labels"]) == (201, "chat", None)
    wrong = world.upload(rows, form | {"labels": "publish"}, name="talk.jsonl").json()
    assert "a file of task chat has no labels" in wrong["detail"]
    pairs = b"prompt,completion\nask habits,say habits\n"
    assert world.upload(pairs, form).json()["task"] == "completion"
    classes = world.upload(b"text,class\nhabits one,a\nhabits two,b\n", form | {"labels": "publish"})
    assert "for another name send columns[label]" in classes.json()["detail"]


def test_a_field_of_a_form_is_named_with_the_way_that_it_is_sent(world: World) -> None:
    for name, words in (
        ("columns.text", "columns.text: a field within another one is sent as columns[text]"),
        ("privacy_budget.epsilon", "sent as privacy_budget[epsilon]"),
        ("my field", "unknown field; there are: file, purpose, budget"),
        ("nope", "nope: unknown field; leave it out"),
    ):
        answer = world.upload(form=PRIVATE | {name: "text"})
        assert answer.status_code == 400
        assert words in answer.json()["detail"]


def test_a_body_without_a_content_type_is_json_and_another_one_is_told_so(world: World) -> None:
    body = json.dumps({"model": "minilm-l6", "training_file": "file-0"}).encode()
    bare = world.call("POST", f"{JOBS}/estimate", "analyst", content=body)
    assert (bare.status_code, bare.json()["error"]["param"]) == (404, "training_file")
    twice = world.call("POST", f"{JOBS}/estimate", "analyst", content=b'{"model": NaN}')
    assert "NaN and Infinity" in twice.json()["detail"]
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        other = world.call("POST", f"{JOBS}/estimate", "analyst", content=body, headers={"content-type": kind})
        assert (other.status_code, other.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert "content-type: application/json" in other.json()["detail"]


def test_integrations_are_refused_in_plain_words(world: World) -> None:
    wandb = [{"type": "wandb", "wandb": {"project": "x"}}]
    body = {"model": "minilm-l6", "training_file": "file-0", "integrations": wandb}
    refused = world.post(JOBS, body).json()
    assert refused["error"]["param"] == "integrations"
    assert "no integrations are offered" in refused["detail"]
    assert world.post(JOBS, body | {"integrations": []}).status_code == 404


class Orig(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("kind", "state", "status"),
    [
        (sa.exc.OperationalError, None, 503),  # nobody listens
        (sa.exc.OperationalError, "57P01", 503),  # the server is shut down
        (sa.exc.OperationalError, "57P03", 503),  # it starts
        (sa.exc.OperationalError, "53300", 503),  # too many connections
        (sa.exc.InternalError, "25006", 503),  # a replica that is not the primary yet
        (sa.exc.OperationalError, "40P01", 503),
        (sa.exc.OperationalError, "55P03", 503),
        (sa.exc.InterfaceError, None, 503),
        (sa.exc.TimeoutError, None, 503),
        (sa.exc.ProgrammingError, "42703", 500),
        (sa.exc.IntegrityError, "23514", 500),
        (sa.exc.InternalError, "XX001", 500),
    ],
)
def test_a_database_that_is_away_is_asked_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], state: str | None, status: int
) -> None:
    error = kind("pool") if kind is sa.exc.TimeoutError else kind("SELECT", {}, Orig(state))  # type: ignore[call-arg]

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("api.jobs.endpoints.fetch", broken)
    with TestClient(create_app(world.settings), raise_server_exceptions=False) as client:
        here = dataclasses.replace(world, client=client)
        answer = here.get(JOBS)
        page = Browser(here, world.keys["one"]["analyst"]).send(Call("GET", "/dashboard/jobs"))
    assert answer.status_code == status
    assert page.status_code == status
    assert (answer.headers.get("retry-after"), page.headers.get("retry-after")) == (
        ("5",) * 2 if status == 503 else (None,) * 2
    )
    assert "SELECT" not in answer.text
