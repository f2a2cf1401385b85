"""Budgets: opened with what the ledger accepts, shown with what it holds."""

import pytest

from tests.api.conftest import World

BUDGET = {"name": "patients", "epsilon": 8, "delta": 1e-5}


def test_a_budget_opens_with_its_first_entry(world: World) -> None:
    made = world.post("/v1/budgets", BUDGET, "steward")
    assert made.status_code == 201
    budget = world.get(f"/v1/budgets/{made.json()['id']}", "auditor").json()
    assert (budget["epsilon"], budget["delta"], budget["epsilon_left"]) == (8, 1e-5, 8)
    entries = world.get(f"/v1/budgets/{budget['id']}/entries", "auditor").json()["data"]
    assert [(e["seq"], e["kind"], e["hash"]) for e in entries] == [(1, "open", budget["ledger"]["hash"])]


def test_pages_hold_every_budget_once(world: World) -> None:
    made = [world.post("/v1/budgets", BUDGET, "steward").json()["id"] for _ in range(5)]
    for order in ("asc", "desc"):
        seen: list[str] = []
        after = None
        while True:
            page = world.get(
                "/v1/budgets",
                "steward",
                params={"limit": 2, "order": order, "after": after} if after else {"limit": 2, "order": order},
            ).json()
            seen += [item["id"] for item in page["data"]]
            if not page["has_more"]:
                break
            after = page["last_id"]
        assert len(seen) == len(set(seen))
        own = [id for id in seen if id in made]
        assert own == (made if order == "asc" else made[::-1])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": 1000}, "epsilon"),
        ({"epsilon": "NaN"}, "epsilon"),
        ({"epsilon": 0.001}, "epsilon"),
        ({"delta": 0}, "delta"),
        ({"delta": 1}, "delta"),
        ({"unit": "user"}, "max_records_per_user"),
        ({"unit": "user", "max_records_per_user": 0}, "max_records_per_user"),
        ({"max_records_per_user": 2}, "max_records_per_user"),
        ({"unit": "house"}, "unit"),
        ({"name": ""}, "name"),
        ({"name": "a\x00b"}, None),
        ({"cap": [1]}, "cap"),
    ],
)
def test_bad_budgets_are_refused_by_field(world: World, change: dict, field: str | None) -> None:
    answer = world.post("/v1/budgets", BUDGET | change, "steward")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == field
    assert answer.headers["x-should-retry"] == "false"


def test_too_small_an_epsilon_is_told_the_smallest(world: World) -> None:
    smallest = world.post("/v1/budgets", BUDGET | {"epsilon": 0.005}, "steward").json()["smallest_epsilon"]
    assert world.post("/v1/budgets", BUDGET | {"epsilon": smallest}, "steward").status_code == 201
