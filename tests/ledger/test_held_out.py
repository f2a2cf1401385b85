"""The share that a budget holds out is fixed with it: its chain begins with it, and no service changes it."""

from decimal import Decimal

import pytest
import sqlalchemy as sa

from domain.kit.ids import new_id
from ledger.budgets import Reference, balance, open_budget
from ledger.verify import verify_budget
from tests.ledger.worlds import World


def opened(world: World, held_out: str) -> str:
    id = new_id("budget")
    with world.api.begin() as c:
        open_budget(
            c,
            id=id,
            tenant_id=world.tenant,
            name="parted",
            epsilon=Decimal(8),
            delta=Decimal("1e-5"),
            unit="record",
            max_records_per_user=None,
            held_out=Decimal(held_out),
            reference=Reference(0.01, 500),
        )
    return id


def test_the_chain_of_a_budget_begins_with_what_it_holds_out(world: World) -> None:
    parted, whole = opened(world, "0.10"), opened(world, "0")
    with world.root.connect() as c:
        assert (balance(c, parted).held_out, balance(c, whole).held_out) == (0.1, 0.0)
        assert verify_budget(c, parted) == verify_budget(c, whole) == []
        for budget in (parted, whole):
            with c.begin_nested() as tampering:
                c.exec_driver_sql("SET LOCAL session_replication_role = replica")
                c.execute(sa.text("UPDATE ledger.budget SET held_out = 0.3 WHERE id = :id"), {"id": budget})
                assert verify_budget(c, budget) != []
                tampering.rollback()


@pytest.mark.parametrize("login", ["api", "worker"])
def test_no_service_changes_it(world: World, login: str) -> None:
    parted = opened(world, "0.1")
    with pytest.raises(sa.exc.DBAPIError, match="permission denied"), getattr(world, login).begin() as c:
        c.execute(sa.text("UPDATE ledger.budget SET held_out = 0 WHERE id = :id"), {"id": parted})


@pytest.mark.parametrize("share", ["0.009", "0.51", "-0.1", "0.12345", "NaN"])
def test_a_share_has_bounds(world: World, share: str) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="budget_held_out_check"):
        opened(world, share)
