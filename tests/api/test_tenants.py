"""Two tenants on one service: nothing of the one can be seen, used or told from nothing by the other."""

import pytest

from tests.api.conftest import JOBS, PRIVATE, World, job_body

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture(scope="module")
def foreign(world: World, quick_checks: None) -> dict[str, str]:
    """Ids of tenant one."""
    file = world.private_file()
    job = world.submit(file["id"])
    key = world.get("/v1/keys", "admin").json()["data"][0]["id"]
    evals = world.upload(form={"purpose": "evals"}).json()["id"]
    return {"file": file["id"], "budget": file["budget"], "job": job["id"], "key": key, "evals": evals}


def test_foreign_ids_are_not_found(world: World, foreign: dict[str, str]) -> None:
    job, budget, file = f"{JOBS}/{foreign['job']}", f"/v1/budgets/{foreign['budget']}", f"/v1/files/{foreign['file']}"
    calls = [
        *(("GET", path) for path in (job, f"{job}/events", f"{job}/checkpoints", f"{job}/adapter")),
        *(("GET", path) for path in (budget, f"{budget}/entries", file, f"{file}/content")),
        ("POST", f"{job}/cancel"),
        ("DELETE", file),
        ("DELETE", f"/v1/keys/{foreign['key']}"),
    ]
    for method, path in calls:
        answer = world.call(method, path, tenant="two")
        made_up = world.call(method, path[: path.rindex("-") + 1] + "0" * 32 if path in (job, budget, file) else path)
        assert answer.status_code == 404, (method, path, answer.text)
        assert "no such" in answer.json()["detail"], made_up.text


def test_foreign_things_cannot_be_used(world: World, foreign: dict[str, str]) -> None:
    own = world.upload(tenant="two").json()["id"]
    uses = [job_body(foreign["file"]), job_body(own, validation_file=foreign["evals"])]
    for body in uses:
        assert world.post(JOBS, body, tenant="two").status_code == 404
        assert world.post(f"{JOBS}/estimate", body, tenant="two").status_code == 404
    form = {k: v for k, v in PRIVATE.items() if k != "privacy_budget[epsilon]"} | {"budget": foreign["budget"]}
    assert world.upload(form=form, tenant="two").status_code == 404


@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/files", "file"), (JOBS, "job"), ("/v1/budgets", "budget"), ("/v1/keys", "key")]
)
def test_a_foreign_cursor_is_as_good_as_a_made_up_one(
    world: World, foreign: dict[str, str], path: str, kind: str
) -> None:
    answers = []
    for cursor in (foreign[kind], "file-0", "\0", "é"):
        answer = world.call("GET", path, tenant="two", params={"after": cursor})
        assert answer.status_code == 400
        answers.append({k: v for k, v in answer.json().items() if k != "request_id"})
    assert all(answer == answers[0] for answer in answers)
    ids = {item["id"] for item in world.call("GET", path, tenant="two").json()["data"]}
    assert foreign[kind] not in ids


def test_queue_position_counts_own_jobs(world: World, foreign: dict[str, str]) -> None:
    own = world.upload(tenant="two").json()["id"]
    assert world.post(JOBS, job_body(own), tenant="two").json()["queue_position"] == 1
