"""What clients do beside the calls that the reference names: every answer is an answer."""

import pytest
import sqlalchemy as sa

from tests.api.conftest import JOBS, World
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
