"""The audit log: every change has its row, with no word of what was sent; nobody rewrites it; a tenant reads its own."""

import pytest
import sqlalchemy as sa

from tests.api.attacks import Browser, Call
from tests.api.conftest import JOBS, World, job_body

SECRET = "canary-of-a-name"


def log(world: World, tenant: str = "one") -> list[dict]:
    return world.get("/v1/audit", "auditor", tenant=tenant, params={"limit": 100}).json()["data"]


def test_changes_and_refusals_are_recorded_with_their_ids_and_nothing_else(world: World) -> None:
    file = world.private_file()
    key = world.post("/v1/keys", {"name": SECRET, "scopes": ["auditor"]}, "admin").json()
    revoked = world.call("DELETE", f"/v1/keys/{key['id']}")
    job = world.submit(file["id"], suffix=SECRET)
    over = world.post(JOBS, job_body(file["id"], 90.0))
    world.post(f"{JOBS}/estimate", job_body(file["id"]))
    world.get(f"{JOBS}/{job['id']}")
    world.post(f"{JOBS}/{SECRET} x/cancel")
    read = world.get(f"/v1/files/{file['id']}/content", "steward")
    assert (over.status_code, read.status_code) == (403, 200)
    rows = log(world)
    me = world.viewer("analyst").key_id
    assert [(row["action"], row["target"], row["status"]) for row in rows[:5]] == [
        ("GET /v1/files/{file_id}/content", file["id"], 200),
        (f"POST {JOBS}/{{job_id}}/cancel", None, 404),
        (f"POST {JOBS}", None, 403),
        (f"POST {JOBS}", job["id"], 201),
        ("DELETE /v1/keys/{key_id}", key["id"], 200),
    ]
    assert (rows[3]["key"], rows[4]["request_id"]) == (me, revoked.headers["x-request-id"])
    assert SECRET not in str(rows)
    assert key["key"] not in str(rows)


def test_the_dashboard_is_recorded_as_well(world: World) -> None:
    job = world.submit(world.private_file()["id"])
    browser = Browser(world, world.keys["one"]["analyst"])
    assert browser.send(Call("POST", f"/dashboard/jobs/{job['id']}/cancel", form={})).status_code == 303
    rows = log(world)
    assert [row["action"] for row in rows[:2]] == ["POST /dashboard/jobs/{job_id}/cancel", "POST /dashboard/login"]
    assert rows[0]["target"] == job["id"]
    plan = {"training_file": world.private_file()["id"], "model": "minilm-l6", "epsilon": "1", "steps": "40"}
    submitted = browser.send(Call("POST", "/dashboard/estimate", form=plan))
    row = log(world)[0]
    assert submitted.status_code == 303
    assert (row["action"], row["status"]) == ("POST /dashboard/estimate", 303)
    assert row["target"] == submitted.headers["location"].rpartition("/")[2]
    sent = Call("POST", "/dashboard/files", form={"purpose": "evals"}, upload=True)
    made = Browser(world, world.keys["one"]["steward"]).send(sent)
    assert made.status_code == 303
    row = log(world)[0]
    file = made.headers["location"].rpartition("/")[2]
    assert (row["action"], row["target"], row["status"]) == ("POST /dashboard/files", file, 303)


def test_a_tenant_reads_its_own_log_by_pages_and_analysts_none(world: World) -> None:
    world.post("/v1/keys", {"name": "n", "scopes": ["auditor"]}, "admin", tenant="two")
    for _ in range(2):
        world.post("/v1/keys", {"name": "n", "scopes": ["auditor"]}, "admin")
    whole = log(world)
    first = world.get("/v1/audit", "auditor", params={"limit": 1}).json()
    second = world.get("/v1/audit", "admin", params={"limit": 1, "after": first["last_id"]}).json()
    assert [*first["data"], *second["data"]] == whole[:2]
    assert first["has_more"]
    foreign = log(world, "two")
    assert not {row["id"] for row in foreign} & {row["id"] for row in whole}
    assert world.get("/v1/audit", "auditor", params={"after": foreign[0]["id"]}).status_code == 400
    for scope in ("steward", "analyst"):
        assert world.get("/v1/audit", scope).status_code == 403


def test_what_broke_is_recorded_as_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("api.keys.endpoints.new_key", broken)
    with pytest.raises(RuntimeError):
        world.post("/v1/keys", {"name": "n", "scopes": ["auditor"]}, "admin")
    assert [(row["action"], row["target"], row["status"]) for row in log(world)[:1]] == [("POST /v1/keys", None, 500)]


@pytest.mark.parametrize("login", ["api", "worker"])
@pytest.mark.parametrize("statement", ["UPDATE audit SET status = 200", "DELETE FROM audit", "TRUNCATE audit"])
def test_no_service_login_rewrites_it(world: World, login: str, statement: str) -> None:
    with world.engine(login).connect() as connection, pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        connection.exec_driver_sql(statement)
