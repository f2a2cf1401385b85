"""Verification finds what somebody with the administrator's login did to the ledger."""

from collections.abc import Callable
from decimal import Decimal

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import policy, work
from ledger.guard import TamperedDatabase, require_intact
from ledger.reserve import Phase, settle
from ledger.verify import verify_budget
from tests.ledger.worlds import World

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw().hex()


def lived_in(world: World) -> str:
    """A budget with a settled, a failed, an open and a cancelled job, and decisions about it."""
    budget = world.budget()
    file = world.file(budget)
    for outcome, steps in (("succeeded", 40), ("failed", 1), (None, 5)):
        job, _ = world.submit([(file, budget, [Phase(0.01, 1.5, 100), Phase(1.0, 30.0, 1)])])
        with world.worker.begin() as c:
            lease = work.claim(c, job, "w", 60)
            assert lease is not None
            work.authorise(c, lease, 0, steps)
            if outcome:
                settle(c, job, outcome, lease.fence)  # type: ignore[arg-type]
    job, _ = world.submit([(file, budget, [Phase(0.01, 1.5, 100)])])
    with world.api.begin() as c:
        settle(c, job, "cancelled")
        policy.lower_limit(c, budget, Decimal("6"), "fewer jobs this year")
    with world.admin.begin() as c:
        policy.raise_limit(c, KEY, budget, Decimal("7.5"), "board decision 12")
        policy.freeze(c, budget, "looking into it")
        policy.thaw(c, KEY, budget, "looked into it")
        policy.correct(c, KEY, budget, [10**9] * len(world.nothing(budget)), "an export outside the service")
        policy.reprice(c, KEY, budget, "accountant version 2")
    return budget


def found(world: World, budget: str, key: str | None = PUBLIC) -> list[str]:
    with world.api.connect() as c:
        return [f.what for f in verify_budget(c, budget, key)]


def test_an_honest_history_verifies(world: World) -> None:
    budget = lived_in(world)
    assert found(world, budget) == []
    held = world.balance(budget)
    with world.api.connect() as c:
        claim = c.execute(
            sa.text("SELECT epsilon_claim, epsilon FROM ledger.budget WHERE id = :b"), {"b": budget}
        ).one()
    assert tuple(claim) == (Decimal("8"), Decimal("7.5"))
    assert held.frozen_reason is None


TAMPERING: dict[str, str] = {
    "an edited entry": "UPDATE ledger.entry SET outcome = 'cancelled' WHERE budget_id = :b AND outcome = 'failed'",
    "an edited amount": "UPDATE ledger.entry SET spent_change[3] = 0 WHERE budget_id = :b AND outcome = 'failed'",
    "a deleted entry": "DELETE FROM ledger.entry WHERE budget_id = :b AND seq = 5",
    "a deleted last entry": "DELETE FROM ledger.entry WHERE budget_id = :b AND seq = (SELECT head_seq FROM ledger.budget WHERE id = :b)",
    "a changed balance": "UPDATE ledger.budget SET spent[3] = spent[3] - 1 WHERE id = :b",
    "a changed reservation": "UPDATE ledger.budget SET reserved[3] = reserved[3] - 1 WHERE id = :b",
    "a changed cap": "UPDATE ledger.budget SET cap[3] = cap[3] + 1 WHERE id = :b",
    "a changed limit": "UPDATE ledger.budget SET epsilon = 9, epsilon_claim = 9, cap = ledger.caps(9, delta, orders, weight_numerators, weight_denominator) WHERE id = :b",
    "a changed delta": "UPDATE ledger.budget SET delta = delta * 2 WHERE id = :b",
    "a changed curve": "UPDATE ledger.phase SET step_cost[3] = step_cost[3] / 2 WHERE reservation_id IN (SELECT id FROM ledger.reservation WHERE budget_id = :b)",
    "a changed mechanism": "UPDATE ledger.phase SET noise_multiplier = 9 WHERE sample_rate < 1 AND reservation_id IN (SELECT id FROM ledger.reservation WHERE budget_id = :b)",
    "fewer authorised steps": "UPDATE ledger.phase SET steps_authorised = steps_authorised - 1 WHERE steps_authorised > 1 AND reservation_id IN (SELECT id FROM ledger.reservation WHERE budget_id = :b)",
    "a lifted freeze": "UPDATE ledger.budget SET spent = array_fill(9e15::bigint, ARRAY[cardinality(orders)]), frozen_reason = 'x' WHERE id = :b",
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found(world: World, what: str) -> None:
    budget = lived_in(world)
    with world.root.begin() as c:
        c.execute(sa.text("SET session_replication_role = replica"))  # what a superuser can do: no trigger fires
        assert c.execute(sa.text(TAMPERING[what]), {"b": budget}).rowcount > 0
    assert found(world, budget) != []


def test_rewriting_the_whole_chain_needs_the_policy_key(world: World) -> None:
    budget = world.budget()
    other = Ed25519PrivateKey.generate()
    with world.admin.begin() as c:
        policy.raise_limit(c, other, budget, Decimal("20"), "signed by somebody else")
    assert found(world, budget) == ["the limit is not signed by the policy key"]
    assert found(world, budget, None) == []


def test_a_removed_guard_is_noticed(world: World) -> None:
    with world.api.connect() as c:
        require_intact(c)
    removals: list[tuple[str, str]] = [
        ("ALTER TABLE ledger.entry DISABLE TRIGGER post", "ALTER TABLE ledger.entry ENABLE TRIGGER post"),
        (
            "ALTER TABLE ledger.budget DROP CONSTRAINT never_overspent",
            "ALTER TABLE ledger.budget ADD CONSTRAINT never_overspent CHECK ((frozen_reason IS NOT NULL OR ledger.fits(cap, spent, reserved)) IS TRUE)",
        ),
        ("GRANT UPDATE (spent) ON ledger.budget TO tacit_api", "REVOKE UPDATE (spent) ON ledger.budget FROM tacit_api"),
        ("GRANT DELETE ON ledger.entry TO tacit_worker", "REVOKE DELETE ON ledger.entry FROM tacit_worker"),
    ]
    for remove, restore in removals:
        with world.admin.begin() as c:
            c.execute(sa.text(remove))
        with world.api.connect() as c, pytest.raises(TamperedDatabase):
            require_intact(c)
        with world.admin.begin() as c:
            c.execute(sa.text(restore))
    with world.admin.begin() as c:
        function = c.execute(sa.text("SELECT pg_get_functiondef('ledger.post()'::regprocedure)")).scalar_one()
        loose = function.replace("NEW.spent_change := ledger.owed(booking.id, NEW.outcome)", "NEW.spent_change := none")
        assert loose != function
        c.exec_driver_sql(loose.replace("%", "%%"))
    with world.worker.connect() as c, pytest.raises(TamperedDatabase, match=r"ledger\.post"):
        require_intact(c)
    with world.admin.begin() as c:
        c.exec_driver_sql(function.replace("%", "%%"))
    with world.worker.connect() as c:
        require_intact(c)


Decision = Callable[[sa.Connection, str], None]


@pytest.mark.parametrize("login", ["api", "worker"])
@pytest.mark.parametrize(
    "decide",
    [
        lambda c, b: policy.raise_limit(c, KEY, b, Decimal("9"), "more"),
        lambda c, b: policy.thaw(c, KEY, b, "go on"),
        lambda c, b: policy.correct(c, KEY, b, [0] * 12, "less"),
        lambda c, b: policy.reprice(c, KEY, b, "again"),
        lambda c, b: c.execute(
            sa.text(
                'INSERT INTO ledger.entry (budget_id, kind, detail) VALUES (:b, \'limit\', \'{"epsilon": "9", "reason": "r"}\')'
            ),
            {"b": b},
        ),
        lambda c, b: c.execute(
            sa.text("INSERT INTO ledger.entry (budget_id, kind, detail) VALUES (:b, 'thaw', '{\"reason\": \"r\"}')"),
            {"b": b},
        ),
        lambda c, b: c.execute(
            sa.text("INSERT INTO ledger.curve VALUES ('free', 'd', 'p', array_fill(1::bigint, ARRAY[12]), false)"),
            {"b": b},
        ),
    ],
)
def test_only_the_admin_gives_room_back(world: World, login: str, decide: Decision) -> None:
    budget = world.budget()
    before = world.balance(budget)
    engine = world.api if login == "api" else world.worker
    with pytest.raises(sa.exc.DBAPIError), engine.begin() as c:
        decide(c, budget)
    assert world.balance(budget) == before
