"""Who may call what: every route wants a key, the key's scope decides, and a dead key opens nothing."""

import pytest
import sqlalchemy as sa

from domain.kit.tables import api_key
from tests.api.conftest import JOBS, World

OPEN = {"/healthz", "/readyz"}
MAY = {
    ("POST", "/v1/budgets"): {"steward"},
    ("GET", "/v1/budgets/x/entries"): {"steward", "auditor"},
    ("GET", "/v1/budgets/x"): {"steward", "analyst", "auditor"},
    ("POST", "/v1/files"): {"steward"},
    ("GET", "/v1/files"): {"steward", "analyst"},
    ("DELETE", "/v1/files/x"): {"steward"},
    ("POST", JOBS): {"analyst"},
    ("POST", f"{JOBS}/estimate"): {"analyst"},
    ("GET", JOBS): {"steward", "analyst"},
    ("POST", f"{JOBS}/x/cancel"): {"steward", "analyst"},
    ("GET", f"{JOBS}/x/adapter"): {"steward", "analyst"},
    ("GET", "/v1/models"): {"steward", "analyst", "auditor"},
    ("POST", "/v1/budgets/x/rename"): {"steward"},
    ("GET", "/v1/keys"): {"steward"},
    ("POST", "/v1/keys"): set(),
    ("DELETE", "/v1/keys/x"): set(),
}


def test_every_route_wants_a_key(world: World) -> None:
    paths = world.client.get("/openapi.json").json()["paths"]
    assert len(paths) > 15
    for path, operations in paths.items():
        for method in operations:
            answer = world.client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == (401 if path not in OPEN else 200), (method, path, answer.text)


@pytest.mark.parametrize(("method", "path"), MAY)
def test_scope_decides(world: World, method: str, path: str) -> None:
    for scope in ("steward", "analyst", "auditor", "admin"):
        answer = world.call(method, path, scope)
        refused = answer.status_code == 403 and answer.json()["error"]["code"] == "missing_scope"
        assert refused == (scope not in MAY[method, path] | {"admin"}), (scope, answer.text)


def test_revoked_expired_and_misspelt_keys_open_nothing(world: World) -> None:
    made = world.post("/v1/keys", {"name": "x", "scopes": ["auditor"], "expires_in_days": 1}, "admin").json()
    headers = {"Authorization": f"Bearer {made['key']}"}

    def code() -> str:
        answer = world.client.get("/v1/models", headers=headers)
        return "ok" if answer.status_code == 200 else answer.json()["error"]["code"]

    assert code() == "ok"
    assert world.client.get("/v1/models", headers={"Authorization": f"Bearer {made['key'][:-1]}g"}).status_code == 401
    with world.engine("admin").begin() as connection:
        past = sa.func.now() - sa.text("interval '1 second'")
        connection.execute(sa.update(api_key).where(api_key.c.id == made["id"]).values(expires_at=past))
    assert code() == "expired_api_key"
    assert world.call("DELETE", f"/v1/keys/{made['id']}").json()["revoked_at"]
    assert code() == "revoked_api_key"
    assert made["key"] not in world.get("/v1/keys", "admin").text


def test_a_key_cannot_revoke_itself(world: World) -> None:
    own = next(k for k in world.get("/v1/keys", "admin").json()["data"] if k["scopes"] == ["admin"])
    assert world.call("DELETE", f"/v1/keys/{own['id']}").status_code == 409
