"""The operator's view: who may see it, and that a tenant's administrator learns nothing of other tenants by it."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from api.status import workers as asked
from cli.main import app as command
from domain.jobs.workers import LiveWorker, _worker
from domain.kit.settings import SiloPlace
from tests.api.conftest import World, make_keys, make_settings, running
from tests.conftest import Database
from tests.dashboard.test_safety import sign_in

pytestmark = pytest.mark.usefixtures("quick_checks")
VERSIONS = {"python": "3.11.9", "tacit": "0.1.0", "torch": "2.12.0"}
SEEN = [
    LiveWorker("tacit-1@a", True, None, VERSIONS),
    LiveWorker("tacit-2@b", True, "north", VERSIONS),
    LiveWorker("tacit-3@c", True, "south", VERSIONS),
    LiveWorker("tacit-4@old", False, None, {}),
]
PATH = "/v1/status"


@pytest.fixture(scope="module")
def world(module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two tenants with a silo each; the first runs the service."""
    folder = tmp_path_factory.mktemp("world")
    places = {}
    for number, (name, tenant) in enumerate((("north", "tenant_one"), ("south", "tenant_two"))):
        (folder / f"{name}-key").write_text(f"{number}1" * 32)
        paths = {"blobs": str(folder / name), "master_key_file": folder / f"{name}-key"}
        places[name] = SiloPlace(tenants=[tenant], **paths)
    more = {"silos": places, "operator_tenant": "tenant_one", "exchange": str(folder / "exchange")}
    made = make_settings(module_database, redis_server, folder)
    settings = made.model_copy(update={**more, "exchange_key": type(made.key_pepper)("33" * 32)})
    keys = make_keys(module_database, settings)
    with pytest.MonkeyPatch.context() as patch, TestClient(create_app(settings), follow_redirects=False) as client:
        patch.setattr(asked, "live", lambda url: SEEN)
        yield World(module_database, settings, client, keys)


def status(world: World, tenant: str = "one", scope: str = "admin") -> dict[str, Any]:
    answer = world.call("GET", PATH, scope, tenant)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def page(world: World, tenant: str) -> str:
    cookies, _ = sign_in(world, world.keys[tenant]["admin"])
    return world.client.get("/dashboard/status", cookies=cookies).text


def grown(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """By how much the numbers of a queue differ, where they do."""
    return {k: n - before["queue"][k] for k, n in after["queue"].items() if n != before["queue"][k]}


def test_it_is_for_administrators_alone(world: World) -> None:
    for scope in ("steward", "analyst", "auditor"):
        assert world.call("GET", PATH, scope).status_code == 403
        cookies, _ = sign_in(world, world.keys["one"][scope])
        assert world.client.get("/dashboard/status", cookies=cookies).status_code == 403
        assert "/dashboard/status" not in world.client.get("/dashboard/budgets", cookies=cookies).text


def test_an_administrator_sees_the_own_tenant_and_nothing_of_another(world: World) -> None:
    before, before_page = status(world, "two"), page(world, "two")
    training = world.private_file()
    world.submit(training["id"], 1.0)
    world.post(f"/v1/budgets/{training['budget']}/freeze", {"reason": "r"}, "steward")
    after = status(world, "two")
    assert after | {"keeping": None} == before | {"keeping": None}, "jobs and budgets of others change nothing"
    assert page(world, "two").count("north") == before_page.count("north") == 0
    assert after["installation"] is None
    assert {disk["free_gib"] for disk in after["disk"]} == {None}
    assert [(w["name"], w["silo"]) for w in after["workers"]] == [(None, None), (None, "south")]


def test_the_operator_sees_the_whole_installation(world: World) -> None:
    before, theirs = status(world), status(world, "two")
    for tenant in ("one", "two"):
        made = world.upload(tenant=tenant).json()
        body = {"model": "minilm-l6", "training_file": made["id"], "privacy": {"epsilon": 1}}
        assert world.post("/v1/fine_tuning/jobs", body, tenant=tenant).status_code == 201
    rules = {"approval_above": 0.5, "queue_days": 7, "reason": "r"}
    assert world.post(f"/v1/budgets/{made['budget']}/rules", rules, "steward", tenant="two").status_code == 200
    assert world.post("/v1/fine_tuning/jobs", body | {"suffix": "another"}, tenant="two").status_code == 201
    shown = status(world)
    assert grown(before["tenant"], shown["tenant"]) == {"in_line": 1}
    assert grown(before["installation"], shown["installation"]) == {"in_line": 2, "waiting_for_approval": 1}
    assert shown["installation"]["jobs"]["queued"] == before["installation"]["jobs"].get("queued", 0) + 3
    assert [w["name"] for w in shown["workers"]] == [w.name for w in SEEN]
    assert all(isinstance(disk["free_gib"], int) for disk in shown["disk"])
    assert shown["checks"]["database"] == "ok"
    assert shown["keeping"]["turn_at"] % 60 == 0, "times are to the minute"
    assert {"tacit", "python", "postgres", "revision"} <= shown["versions"].keys()
    text = page(world, "one")
    assert "tacit-2@b" in text
    assert "Jobs of all tenants together" in text
    assert grown(theirs["tenant"], status(world, "two")["tenant"]) == {"in_line": 1, "waiting_for_approval": 1}


def test_a_broker_that_is_away_and_a_disk_without_room_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(url: str) -> list[LiveWorker]:
        raise ConnectionRefusedError

    monkeypatch.setattr(asked, "live", away)
    full = world.settings.model_copy(update={"upload_limit": 2**62})
    with TestClient(create_app(full), follow_redirects=False) as client:
        world = World(world.database, full, client, world.keys)
        shown = status(world)
        assert shown["workers"] is None
        assert {disk["word"] for disk in shown["disk"]} == {"low"}
        assert "no worker could be asked" in page(world, "one")


@pytest.mark.parametrize("said", ["what?", {"error": "unknown"}, {"versions": 3}, None])
def test_what_a_worker_of_another_release_says_is_taken_as_it_is(said: Any) -> None:
    assert _worker("w", said) == LiveWorker("w", False, None, {})


def test_the_command_says_the_same(world: World) -> None:
    with running(create_app(world.settings)) as address:
        options = ["--url", address, "--key", world.keys["one"]["admin"]]
        ran = CliRunner().invoke(command, ["status", *options])
        as_json = CliRunner().invoke(command, ["status", "--json", *options])
    assert (ran.exit_code, as_json.exit_code) == (0, 0), ran.output
    for word in ("tacit-1@a", "All tenants", "minilm-l6", "postgres", "torch 2.12.0"):
        assert word in ran.stdout
    assert '"object": "status"' in as_json.stdout
