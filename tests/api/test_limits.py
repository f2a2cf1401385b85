"""Limits on what a caller may send, and how often; keys that are rotated."""

import secrets

import pytest
import redis
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from api.rate import RateLimit
from domain.kit.tables import api_key
from tests.api.conftest import JOBS, World
from tests.superuser import past_triggers

BUDGET = b'{"name": "n", "epsilon": 8, "delta": 1e-5, "reference": %s}'
OUT_OF_BOUNDS = {
    "deep": BUDGET % (b"[" * 40 + b"]" * 40),
    "bottomless": b"[" * 200_000,
    "NaN": BUDGET % b"NaN",
    "infinity": BUDGET % b"1e999",
    "large": BUDGET % (b"9" * 100),
    "huge": BUDGET % (b"9" * 5000),
    "twice": b'{"name": "n", "epsilon": 8, "epsilon": 1, "delta": 1e-5}',
    "latin": b'{"name": "\xe9", "epsilon": 8, "delta": 1e-5}',
    "utf-16": '{"name": "n", "epsilon": 8, "delta": 1e-5}'.encode("utf-16"),
    "surrogate": b'{"name": "\\ud800", "epsilon": 8, "delta": 1e-5}',
    "nul": b'{"name": "\\u0000", "epsilon": 8, "delta": 1e-5}',
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_json_out_of_bounds_is_refused_in_the_shape_of_every_error(world: World, name: str) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = world.call("POST", "/v1/budgets", "steward", content=OUT_OF_BOUNDS[name], headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), answer.text
    assert answer.headers["x-should-retry"] == "false"
    assert len(answer.text) < 1000  # nothing is repeated
    before_any_route = name not in ("surrogate", "nul")  # those are text that no database holds
    assert answer.json()["detail"].startswith("the body is not") == before_any_route


def test_an_object_that_any_depth_may_hide_in_is_bounded_too(world: World) -> None:
    deep = b'{"model": "m", "training_file": "f", "hyperparameters": {"steps": ' + b"[" * 40 + b"]" * 40 + b"}}"
    answer = world.call("POST", JOBS, "analyst", content=deep, headers={"content-type": "application/json"})
    assert (answer.status_code, "nested" in answer.text) == (400, True)


@pytest.mark.parametrize("path", ["/v1/budgets", "/v1/keys", JOBS, f"{JOBS}/estimate", "/v1/files", "/dashboard/login"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_413_everywhere(world: World, path: str, declared: bool) -> None:
    piece = b" " * 2**20
    pieces = 3 if path == "/v1/files" else 2
    kind = "multipart/form-data; boundary=x" if path == "/v1/files" else "application/json"
    if path == "/dashboard/login":
        kind = "application/x-www-form-urlencoded"
    content = piece * pieces if declared else iter([piece] * pieces)
    answer = world.call("POST", path, "admin", content=content, headers={"content-type": kind})
    assert answer.status_code == 413
    if not path.startswith("/dashboard") or declared:
        assert answer.json()["error"]["code"] == "request_too_large"


def test_a_key_that_asks_too_often_waits_and_no_other_key_notices(world: World) -> None:
    settings = world.settings.model_copy(update={"rate_limit": 5})
    keys = {name: {"Authorization": f"Bearer {world.keys[name]['analyst']}"} for name in ("one", "two")}
    with TestClient(create_app(settings)) as client, TestClient(create_app(settings)) as other_process:
        codes = [client.get("/v1/models", headers=keys["one"]).status_code for _ in range(4)]
        codes += [other_process.get("/v1/models", headers=keys["one"]).status_code for _ in range(4)]
        assert codes.count(429) >= 3 or codes.count(200) >= 6  # the minute may have ended in between
        limited = [client.get("/v1/models", headers=keys["one"]) for _ in range(6)][-1]
        assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(limited.headers["retry-after"]) <= 60
        assert "x-should-retry" not in limited.headers
        free = client.get("/v1/models", headers=keys["two"])
        assert free.status_code == 200
        assert not {name for name in free.headers if "limit" in name or name == "retry-after"}


def test_processes_count_together_and_alone_while_redis_is_away(
    redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0 + secrets.randbelow(10**8) // 60 * 60
    monkeypatch.setattr("time.time", lambda: now)
    first, second = RateLimit(redis_server, 2), RateLimit(redis_server, 2)
    assert [first.take("key_a"), second.take("key_a"), first.take("key_a")] == [0, 0, 60]
    assert first.take("key_b") == 0
    away = RateLimit("redis://127.0.0.1:1/0", 2)
    assert [away.take("key_a") for _ in range(3)] == [0, 0, 60]
    now += 60
    assert away.take("key_a") == 0
    assert first.take("key_a") == 0
    assert isinstance(first._redis, redis.Redis)


def test_a_rotated_key_has_two_secrets_for_a_while(world: World) -> None:
    made = world.post("/v1/keys", {"name": "x", "scopes": ["auditor"]}, "admin").json()

    def works(secret: str) -> bool:
        return world.client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"}).status_code == 200

    path = f"/v1/keys/{made['id']}/rotate"
    rotated = world.post(path, {"overlap_hours": 2}, "admin").json()
    assert (rotated["id"], rotated["scopes"]) == (made["id"], ["auditor"])
    assert rotated["previous_until"] is not None
    assert (works(made["key"]), works(rotated["key"])) == (True, True)
    with past_triggers(world.database) as connection:  # as time passes
        past = sa.func.now() - sa.text("interval '1 second'")
        connection.execute(sa.update(api_key).where(api_key.c.id == made["id"]).values(previous_until=past))
    assert (works(made["key"]), works(rotated["key"])) == (False, True)
    again = world.post(path, {}, "admin").json()
    last = world.post(path, {"overlap_hours": 0}, "admin").json()
    assert [works(k["key"]) for k in (made, rotated, again, last)] == [False, False, False, True]
    world.call("DELETE", f"/v1/keys/{made['id']}")
    refused = world.post(path, {}, "admin")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "dead_key")
    assert not works(last["key"])
    assert world.post(path, {}, "admin", tenant="two").status_code == 404
