"""What analysts can see does not depend on whether a public upload has private texts in it."""

import re
import threading
from typing import Any

from tests.api.conftest import JOBS, World, job_body
from tests.api.test_questions import PUBLIC, edited, put
from tests.api.test_variants import sentences

ID = re.compile(r"(file|budget|key|grant|ftjob|inv|resv|tenant|entry|event)[-_][0-9a-zA-Z_-]+")
PASSING = {
    "request_id",
    "instance",
    "created_at",
    "expires_at",
    "at",
    "hash",
    "head_hash",
    "prev_hash",
    "signature",
    "bytes",
    "sha256",
    "estimated_finish",
    "seed",
}
"""Names of values that differ from one run to the next."""


def test_two_worlds(world: World) -> None:
    """Everything that two analysts' keys can fetch: one with a grant and a job, one without."""
    private, other = sentences(70), sentences(71)
    lives = {"one": edited(private), "two": edited(other)}  # in the first the public texts are private ones, edited
    looks = {tenant: life(world, tenant, private, texts) for tenant, texts in lives.items()}
    assert looks["one"] == looks["two"]
    before, during, after = looks["one"]
    assert before == during != after
    assert len(str(before)) > 5000


def life(world: World, tenant: str, private: list[str], texts: list[str]) -> list[Any]:
    made = world.post("/v1/keys", {"name": "second", "scopes": ["analyst"]}, "admin", tenant=tenant)
    world.keys[tenant]["second"] = made.json()["key"]
    file = put(world, private, tenant=tenant)
    job = world.post(JOBS, job_body(file["id"]), "analyst", tenant=tenant)
    assert job.status_code in (200, 201), job.text
    looks = [look(world, tenant)]
    begun, done = threading.Event(), threading.Event()
    during: list[Any] = []

    def watch() -> None:
        begun.set()
        while not done.is_set() or not during:
            during.append(look(world, tenant))

    watching = threading.Thread(target=watch)
    watching.start()
    begun.wait()
    public = put(world, texts, PUBLIC, tenant=tenant)
    if public["question"] is not None:
        assert tenant == "one"
        during += [look(world, tenant) for _ in range(3)]  # it waits
        answer = {"answer": "publish", "reason": "a published collection"}
        assert world.post(f"/v1/files/{public['id']}/answer", answer, "steward", tenant=tenant).status_code == 200
    done.set()
    watching.join()
    after = look(world, tenant)
    # A look that began before the file was there may end after: such a one is neither.
    whole = [seen for seen in during if files_of(seen) == files_of(looks[0])]
    assert whole
    assert all(seen == looks[0] for seen in whole)
    return [*looks, whole[0], after]


def files_of(seen: Any) -> Any:
    return [answer for path, *answer in seen if path == "/v1/files"]


def look(world: World, tenant: str) -> Any:
    """What both keys get, ids numbered as they come."""
    names: dict[str, str] = {}
    found = []
    for scope in ("analyst", "second"):
        paths = ["/v1/files", "/v1/budgets", JOBS, "/v1/models", "/v1/files/questions"]
        for path in paths:
            answer = world.get(path, scope, tenant=tenant)
            found.append((path, answer.status_code, plain(answer.json(), names)))
            for one in answer.json().get("data", ()):
                if path == "/v1/models":
                    continue
                for more in ("", "/grants", "/entries", "/content", "/report", "/events", "/checkpoints"):
                    inner = world.get(f"{path}/{one['id']}{more}", scope, tenant=tenant)
                    if inner.headers["content-type"] == "application/json" or more == "":
                        found.append((more, inner.status_code, plain(inner.json(), names)))
                    else:
                        found.append((more, inner.status_code, len(inner.text.splitlines())))
    return found


def plain(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: plain(v, names) for k, v in value.items() if k not in PASSING}
    if isinstance(value, list):
        return [plain(v, names) for v in value]
    if isinstance(value, str):
        return ID.sub(lambda m: names.setdefault(m[0], f"{m[1]} {len(names)}"), value)
    return value
