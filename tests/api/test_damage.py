"""A ledger that was damaged or has lost something: pages and lists go on, and nobody is taken in who may be known."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from cli.main import app as command
from domain.keeping import keeper
from tests.api.conftest import JOBS, PRIVATE, World, job_body, make_keys, make_settings
from tests.conftest import Database
from tests.dashboard.test_safety import sign_in
from tests.superuser import forget, past_triggers, poison


@pytest.fixture
def world(
    database: Database, redis_server: str, tmp_path: Path, quick_checks: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Damaged by its test: nobody else's. The keeper takes no turn by itself: to freeze a budget writes its numbers
    again, and on a slow machine that came between a damage and the look at it."""
    monkeypatch.setattr(keeper, "SECONDS", 3600.0)
    settings = make_settings(database, redis_server, tmp_path)
    keys = make_keys(database, settings)
    with TestClient(create_app(settings), follow_redirects=False) as client:
        yield World(database, settings, client, keys)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "damage",
    [
        "weight_numerators = ARRAY[weight_numerators::int[]]",
        "spent = ARRAY[spent::bigint[]]",
        "reserved[3] = NULL",
        "cap = '{}'",
        "epsilon = 'NaN'",
        "reference = '{}'",
    ],
)
def test_one_malformed_budget_is_shown_frozen_and_hides_no_other(world: World, damage: str) -> None:
    sound, file = world.private_file(), world.private_file()
    poison(world.database, f"UPDATE ledger.budget SET {damage} WHERE id = :budget", file["budget"])
    shown = {budget["id"]: budget for budget in world.get("/v1/budgets").json()["data"]}
    assert shown[sound["budget"]]["frozen"] is False
    assert shown[file["budget"]]["frozen"] is True
    assert "cannot be read" in shown[file["budget"]]["frozen_reason"]
    assert (shown[file["budget"]]["epsilon_left"], shown[file["budget"]]["ledger"]["spent"]) == (0.0, [])
    assert (shown[file["budget"]]["share_spent"], shown[file["budget"]]["share_left"]) == (1.0, 0.0)
    path = f"/v1/budgets/{file['budget']}"
    for scope, found in (("analyst", ""), ("auditor", "/entries"), ("steward", "/grants")):
        assert world.get(path + found, scope).status_code == 200
    for asked in (JOBS, f"{JOBS}/estimate"):
        refused = world.post(asked, job_body(file["id"]))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "budget_frozen")
    assert world.post(f"{path}/verify", scope="auditor").status_code == 200
    assert world.post(JOBS, job_body(sound["id"])).status_code == 201
    for scope in ("steward", "analyst", "auditor"):
        cookies, _ = sign_in(world, world.keys["one"][scope])
        for page in ("/dashboard/budgets", f"/dashboard/budgets/{file['budget']}", "/dashboard/estimate"):
            if not (scope == "auditor" and page.endswith("estimate")):
                assert world.client.get(page, cookies=cookies).status_code in (200, 403), page
        assert world.client.get(f"/dashboard/budgets/{file['budget']}", cookies=cookies).status_code == 200


def test_what_the_keeper_has_frozen_stays_so_though_it_can_be_read_again(world: World) -> None:
    file = world.private_file()
    poison(world.database, "UPDATE ledger.budget SET spent = ARRAY[spent::bigint[]] WHERE id = :budget", file["budget"])
    keeper.verify_all(world.engine("api"), None)
    shown = world.get(f"/v1/budgets/{file['budget']}").json()
    assert shown["frozen"] is True
    assert "verification failed" in shown["frozen_reason"]
    assert world.post(f"{JOBS}/estimate", job_body(file["id"])).json()["fits"] is False
    refused = world.post(JOBS, job_body(file["id"]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "budget_frozen")


def test_the_keepers_line_is_for_stewards(world: World) -> None:
    for scope, sees in (("steward", True), ("admin", True), ("analyst", False), ("auditor", False)):
        cookies, _ = sign_in(world, world.keys["one"][scope])
        assert ("keeper of the ledger" in world.client.get("/dashboard/budgets", cookies=cookies).text) is sees


def test_while_a_budget_is_lost_nobody_new_is_taken_in(world: World) -> None:
    kept, lost = world.private_file(), world.private_file()
    into = {name: value for name, value in PRIVATE.items() if not name.startswith("privacy_budget")}
    keeper.Keeper(world.engine("api"), world.settings).begin()
    with past_triggers(world.database) as connection:
        connection.execute(sa.text("DELETE FROM file WHERE id = :id"), {"id": lost["id"]})
    forget(world.database, lost["budget"])
    keeper.Keeper(world.engine("api"), world.settings).begin()
    for refused in (
        world.upload(form=PRIVATE, granted=False),
        world.upload(form=into | {"budget": kept["budget"]}, granted=False),
        world.post("/v1/budgets", {"name": "n", "epsilon": 3, "delta": 1e-6}, "steward"),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_incomplete"), refused.text
        assert "accept-loss" in refused.json()["error"]["message"]
        assert refused.headers["x-should-retry"] == "false"
    assert world.post(JOBS, job_body(kept["id"])).status_code == 201
    decide = ["ledger", "accept-loss", lost["budget"], "--admin-url", world.database.admin_url, "--yes", "--reason"]
    assert CliRunner().invoke(command, [*decide, ""]).exit_code == 1
    done = CliRunner().invoke(command, [*decide, "it held a test"])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(command, [*decide, "again"]).exit_code == 1
    world.private_file()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "damage",
    [
        "method = '{}'",
        "plan = '{}'",
        """privacy = privacy || '{"epsilon": "NaN"}'""",
        """privacy = privacy || '{"budget_left_after": "Infinity"}'""",
    ],
)
def test_one_malformed_job_is_shown_damaged_and_hides_no_other(world: World, damage: str) -> None:
    file = world.private_file()["id"]
    sound, bad = (world.submit(file, 1.0)["id"] for _ in range(2))
    with past_triggers(world.database) as connection:
        connection.exec_driver_sql(f"UPDATE public.job SET {damage.replace('%', '%%')} WHERE id = '{bad}'")
    shown = {job["id"]: job for job in world.get(JOBS).json()["data"]}
    assert shown[sound]["error"] is None
    assert shown[bad]["error"]["code"] == "job_unreadable"
    assert shown[bad]["privacy"]["epsilon"] == 0
    cookies, _ = sign_in(world, world.keys["one"]["analyst"])
    page = world.client.get(f"/dashboard/jobs/{bad}", cookies=cookies)
    assert (page.status_code, "is damaged" in page.text) == (200, True)
