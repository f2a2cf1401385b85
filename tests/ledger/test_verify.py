"""Verification finds what somebody with the administrator's login did to the ledger."""

from collections.abc import Callable
from decimal import Decimal

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dpcore.terms import accounting
from ledger import policy, work
from ledger.guard import TamperedDatabase, require_intact
from ledger.reserve import Priced, settle
from ledger.tables import budget as budgets
from ledger.tables import phase, reservation
from ledger.verify import verify_budget
from tests.ledger.worlds import World

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw().hex()


def lived_in(world: World) -> str:
    """A budget with records and users, a settled, a failed, an open and a cancelled job, and decisions about it."""
    budget = world.budget()
    file = world.file(budget)
    world.marks(budget, "record", "user", "record")
    for outcome, steps in (("succeeded", 40), ("failed", 1), (None, 5)):
        job, _ = world.submit([(file, budget, [Priced(0.01, 1.5, 100), Priced(1.0, 30.0, 1, indivisible=True)])])
        with world.worker.begin() as c:
            lease = work.claim(c, job, "w", 60)
            assert lease is not None
            work.authorise(c, lease, 0, steps)
            if outcome:
                settle(c, job, outcome, lease.fence)  # type: ignore[arg-type]
    job, _ = world.submit([(file, budget, [Priced(0.01, 1.5, 100)])])
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


def test_prices_that_database_and_library_round_apart_verify(world: World) -> None:
    """At order 32, and at 56, of these the database's price of a step is one unit of 1e-12 nat above the library's."""
    budget = world.budget()
    file = world.file(budget)
    apart = [Priced(0.0166, 444.150755, 1), Priced(0.0139, 723.500921, 1)]
    world.submit([(file, budget, apart)])
    assert found(world, budget) == []


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


OURS = "reservation_id IN (SELECT id FROM ledger.reservation WHERE budget_id = :b)"
OF_OUR_JOBS = "SELECT job_id FROM ledger.reservation WHERE budget_id = :b"
CHEAPER = "noise_multiplier = 9, step_cost = ledger.poisson_gaussian_curve(9, sample_rate, b.orders), reserved = ledger.times(ledger.poisson_gaussian_curve(9, sample_rate, b.orders), steps_max)"
FORGOTTEN = "WITH gone AS (DELETE FROM fingerprint WHERE budget_id = :b) "
TAMPERING: dict[str, tuple[str, str]] = {
    "an edited entry": (
        "UPDATE ledger.entry SET outcome = 'cancelled' WHERE budget_id = :b AND outcome = 'failed'",
        "does not hash to its hash",
    ),
    "an edited amount": (
        "UPDATE ledger.entry SET spent_change[3] = 0 WHERE budget_id = :b AND outcome = 'failed'",
        "do not add up to what is spent",
    ),
    "a deleted entry": ("DELETE FROM ledger.entry WHERE budget_id = :b AND seq = 5", "the sequence goes from 4 to 6"),
    "a deleted last entry": (
        "DELETE FROM ledger.entry WHERE budget_id = :b AND seq = (SELECT head_seq FROM ledger.budget WHERE id = :b)",
        "the head is not the last entry",
    ),
    "a changed balance": (
        "UPDATE ledger.budget SET spent[3] = spent[3] - 1 WHERE id = :b",
        "do not add up to what is spent",
    ),
    "a changed reservation": (
        "UPDATE ledger.budget SET reserved[3] = reserved[3] - 1 WHERE id = :b",
        "do not add up to what is reserved",
    ),
    "a changed cap": ("UPDATE ledger.budget SET cap[3] = cap[3] + 1 WHERE id = :b", "the caps are not"),
    "a changed limit": (
        "UPDATE ledger.budget SET epsilon = 9, epsilon_claim = 9, cap = ledger.caps(9, delta, orders, weight_numerators, weight_denominator) WHERE id = :b",
        "the limit is not",
    ),
    "a changed delta": (
        "UPDATE ledger.budget SET delta = delta * 2 WHERE id = :b",
        "the hash of the entry before does not match",
    ),
    "a changed curve": (
        f"UPDATE ledger.phase SET step_cost[3] = step_cost[3] / 2 WHERE {OURS}",
        "has a curve that is not that of its mechanism",
    ),
    "a changed mechanism": (
        f"UPDATE ledger.phase SET noise_multiplier = 9 WHERE sample_rate < 1 AND {OURS}",
        "has a curve that is not that of its mechanism",
    ),
    "a cheaper mechanism with its price": (
        f"UPDATE ledger.phase SET {CHEAPER} FROM ledger.budget b WHERE b.id = :b AND {OURS}",
        "the re-pricing is not the price of what was booked before it",
    ),
    "fewer authorised steps": (
        f"UPDATE ledger.phase SET steps_authorised = steps_authorised - 1 WHERE steps_authorised > 1 AND {OURS}",
        "has other authorised steps than its authorisations add up to",
    ),
    "a lifted limit": (
        "UPDATE ledger.budget SET spent = array_fill(9e15::bigint, ARRAY[cardinality(orders)]), frozen_reason = 'x' WHERE id = :b",
        "do not add up to what is spent",
    ),
    "a freeze without entry": ("UPDATE ledger.budget SET frozen_reason = 'x' WHERE id = :b", "whether, or why"),
    "a reservation deleted with all that hangs on it": (
        f"WITH a AS (DELETE FROM ledger.authorisation WHERE {OURS}), p AS (DELETE FROM ledger.phase WHERE {OURS})"
        " DELETE FROM ledger.reservation WHERE budget_id = :b",
        "is gone from the budget",
    ),
    "a reservation moved to another budget": (
        "UPDATE ledger.reservation SET budget_id = 'another' WHERE budget_id = :b",
        "is gone from the budget",
    ),
    "deleted phases": (
        f"WITH a AS (DELETE FROM ledger.authorisation WHERE {OURS}) DELETE FROM ledger.phase WHERE {OURS}",
        "has no phases",
    ),
    "a deleted phase with authorised steps": (
        f"DELETE FROM ledger.phase WHERE ordinal = 0 AND {OURS}",
        "steps of a phase that reservation",
    ),
    "a deleted job": (f"DELETE FROM job WHERE id IN ({OF_OUR_JOBS})", "the job of reservation"),
    "a job of another tenant": (
        f"UPDATE job SET tenant_id = 'another' WHERE id IN ({OF_OUR_JOBS})",
        "the job of reservation",
    ),
    "deleted files of jobs": ("DELETE FROM job_file WHERE budget_id = :b", "is not of the file and the budget"),
    "a deleted file": ("DELETE FROM file WHERE budget_id = :b", "is not of the file and the budget"),
    "a file of another budget": (
        "UPDATE file SET budget_id = 'another' WHERE budget_id = :b",
        "is not of the file and the budget",
    ),
    "another file of a reservation": (
        "UPDATE ledger.reservation SET file_id = 'another' WHERE budget_id = :b",
        "is not of the file and the budget",
    ),
    "a job without its reservation": (
        "INSERT INTO job_file SELECT id, 'f', :b FROM job LIMIT 1",
        "uses a file of the budget without a reservation",
    ),
    "a job without its work": (f"DELETE FROM ledger.work WHERE job_id IN ({OF_OUR_JOBS})", "the work on the job"),
    "a settled job that is leased": (
        f"UPDATE ledger.work SET lease_until = now() + interval '1 minute' WHERE fence = 0 AND job_id IN ({OF_OUR_JOBS})",
        "is being worked on after its settlement",
    ),
    "a settled job that is claimed": (
        f"UPDATE ledger.work SET fence = fence + 1 WHERE fence > 0 AND job_id IN ({OF_OUR_JOBS})",
        "was claimed after its settlement",
    ),
    "a reservation without end": (
        "UPDATE ledger.reservation SET expires_at = created_at + interval '390 days', created_at = created_at + interval '300 days' WHERE budget_id = :b AND state = 'reserved'",
        "may last longer than any",
    ),
    "an indivisible phase that can be cut": (
        f"UPDATE ledger.phase SET indivisible = false WHERE {OURS}",
        "has a phase that was indivisible when it was charged",
    ),
    "deleted fingerprints": (
        "DELETE FROM fingerprint WHERE budget_id = :b AND kind = 'user'",
        "not those that were counted",
    ),
    "an exchanged fingerprint": (
        "UPDATE fingerprint SET mac = sha256(mac) WHERE budget_id = :b AND kind = 'user'",
        "not those that were counted",
    ),
    "deleted fingerprints that were never counted": (
        FORGOTTEN + "DELETE FROM ledger.population WHERE budget_id = :b",
        "not those that this entry sealed",
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found(world: World, what: str) -> None:
    budget = lived_in(world)
    statement, finding = TAMPERING[what]
    with world.root.begin() as c:
        c.execute(sa.text("SET session_replication_role = replica"))  # what a superuser can do: no trigger fires
        assert c.execute(sa.text(statement), {"b": budget}).rowcount > 0
    assert [what for what in found(world, budget) if finding in what] != []


Decision = Callable[[sa.Connection, str], None]


def too_much(c: sa.Connection, budget: str) -> list[int]:
    orders = c.execute(sa.select(budgets.c.orders).where(budgets.c.id == budget)).scalar_one()
    return [2**50] * len(orders)


FREEZING: dict[str, tuple[list[Decision], str | None]] = {
    "the first reason stays": (
        [lambda c, b: policy.freeze(c, b, "one"), lambda c, b: policy.freeze(c, b, "two")],
        "one",
    ),
    "a thaw ends it": ([lambda c, b: policy.freeze(c, b, "one"), lambda c, b: policy.thaw(c, KEY, b, "two")], None),
    "a limit": (
        [lambda c, b: policy.lower_limit(c, b, Decimal("0.001"), "less")],
        "over its limit after a limit: less",
    ),
    "a correction": (
        [lambda c, b: policy.correct(c, KEY, b, too_much(c, b), "an export")],
        "over its limit after a correction: an export",
    ),
    "what froze it first, when it is then over": (
        [lambda c, b: policy.freeze(c, b, "one"), lambda c, b: policy.correct(c, KEY, b, too_much(c, b), "an export")],
        "one",
    ),
}


@pytest.mark.parametrize("what", FREEZING)
def test_why_a_budget_is_frozen_is_replayed(world: World, what: str) -> None:
    budget = world.budget()
    acts, reason = FREEZING[what]
    for act in acts:
        with world.admin.begin() as c:
            act(c, budget)
    held = world.balance(budget)
    assert held.frozen_reason == reason
    assert found(world, budget) == []
    may_be_cleared = reason is not None and accounting.fits(held.cap, held.spent, held.reserved)
    for other in ("another", None) if may_be_cleared else ("another",):
        past_the_triggers(world, sa.update(budgets).where(budgets.c.id == budget).values(frozen_reason=other))
        assert found(world, budget) == ["the entries say otherwise of whether, or why, the budget is frozen"]


def test_a_repricing_freezes_with_its_reason(world: World) -> None:
    budget = world.budget()
    world.submit([(world.file(budget), budget, [Priced(0.01, 1.5, 1000)])])
    cheap = sa.select(reservation.c.id).where(reservation.c.budget_id == budget)
    past_the_triggers(world, sa.update(phase).where(phase.c.reservation_id.in_(cheap)).values(noise_multiplier=0.5))
    with world.admin.begin() as c:
        policy.reprice(c, KEY, budget, "the noise was less than was said")
    reason = world.balance(budget).frozen_reason
    assert reason == "over its limit after a reprice: the noise was less than was said"
    assert found(world, budget) == []


def test_a_charge_that_was_let_in_behind_the_triggers_is_found(world: World) -> None:
    """The balance is true to its entries, and the row says again what it said before."""
    frozen, full = world.budget(), world.budget()
    files = {budget: world.file(budget) for budget in (frozen, full)}
    with world.api.begin() as c:
        policy.freeze(c, frozen, "a complaint")
    cap = world.balance(full).cap
    past_the_triggers(world, sa.update(budgets).where(budgets.c.id == frozen).values(frozen_reason=None))
    past_the_triggers(world, sa.update(budgets).where(budgets.c.id == full).values(cap=[2**53 - 1] * len(cap)))
    world.submit([(files[frozen], frozen, [Priced(0.01, 1.5, 10)])])
    world.submit([(files[full], full, [Priced(0.5, 0.5, 1000)])])
    past_the_triggers(world, sa.update(budgets).where(budgets.c.id == frozen).values(frozen_reason="a complaint"))
    with world.root.begin() as c:
        c.exec_driver_sql("SET session_replication_role = replica")
        c.exec_driver_sql("ALTER TABLE ledger.budget DROP CONSTRAINT never_overspent")
        c.execute(sa.update(budgets).where(budgets.c.id == full).values(cap=list(cap)))
        assert [f.what for f in verify_budget(c, full)] == ["the charge did not fit", "the budget is overspent"]
        c.rollback()
    assert found(world, frozen) == ["the budget was frozen when this was charged"]


def past_the_triggers(world: World, statement: sa.Update) -> None:
    with world.root.begin() as c:
        c.exec_driver_sql("SET session_replication_role = replica")
        assert c.execute(statement).rowcount > 0


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


@pytest.mark.parametrize("login", ["api", "worker"])
@pytest.mark.parametrize(
    "decide",
    [
        lambda c, b: policy.raise_limit(c, KEY, b, Decimal("9"), "more"),
        lambda c, b: policy.thaw(c, KEY, b, "go on"),
        lambda c, b: policy.correct(c, KEY, b, [0] * 24, "less"),
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
