"""Limits, freezes, ages, indivisible phases, other mechanisms, and re-pricing."""

from decimal import Decimal

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.kit.ids import new_id
from dpcore.terms import accounting
from ledger import policy, work
from ledger.errors import BudgetExceeded, BudgetFrozen, ReservationExpired, translated
from ledger.reserve import Priced, settle
from ledger.tables import curve, phase, reservation
from tests.ledger.worlds import REFERENCE_JOB, World

KEY = Ed25519PrivateKey.generate()


def claimed(world: World, budget: str, *phases: Priced) -> work.Lease:
    job, _ = world.submit([(world.file(budget), budget, list(phases))])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
    assert lease is not None
    return lease


def test_a_frozen_budget_neither_reserves_nor_authorises_but_still_settles(world: World) -> None:
    budget = world.budget()
    lease = claimed(world, budget, Priced(0.01, 1.0, 10))
    with world.worker.begin() as c:
        work.authorise(c, lease, 0, 4)
    with world.api.begin() as c:
        policy.freeze(c, budget, "a complaint")
    with pytest.raises(BudgetFrozen):
        world.submit([(world.file(budget), budget, [Priced(0.01, 5.0, 1)])])
    with pytest.raises(BudgetFrozen), world.worker.begin() as c:
        work.authorise(c, lease, 0, 1)
    with world.worker.begin() as c:
        settle(c, lease.job_id, "cancelled", lease.fence)
    held = world.balance(budget)
    assert held.reserved == held.filter.nothing
    assert held.spent[0] > 0


def test_lowering_below_what_is_used_freezes_and_thawing_waits_for_room(world: World) -> None:
    budget = world.budget()
    for _ in range(20):
        world.submit([(world.file(budget), budget, [REFERENCE_JOB])])
    with world.api.begin() as c:
        policy.lower_limit(c, budget, Decimal("1"), "a stricter policy")
    frozen = world.balance(budget)
    assert frozen.frozen_reason == "over its limit after a limit: a stricter policy"
    with pytest.raises(BudgetExceeded), world.admin.begin() as c:
        policy.thaw(c, KEY, budget, "too early")
    with world.admin.begin() as c:
        policy.raise_limit(c, KEY, budget, Decimal("8"), "back to where it was")
        policy.thaw(c, KEY, budget, "room again")
    world.submit([(world.file(budget), budget, [REFERENCE_JOB])])


def test_lowering_restricts_later_jobs(world: World) -> None:
    budget = world.budget()
    job = Priced(
        0.01, accounting.calibrate(4, 1e-5, world.balance(budget).filter, (accounting.Part(0.01, 1000),)), 1000
    )
    with world.api.begin() as c:
        policy.lower_limit(c, budget, Decimal("3.9"), "half")
    with pytest.raises(BudgetExceeded):
        world.submit([(world.file(budget), budget, [job])])


def test_a_correction_past_the_limit_is_visible_as_a_freeze(world: World) -> None:
    budget = world.budget()
    with world.admin.begin() as c:
        policy.correct(c, KEY, budget, [accounting.SATURATION] * len(world.nothing(budget)), "records were exported")
    held = world.balance(budget)
    assert held.frozen_reason is not None
    assert held.spent == (accounting.SATURATION,) * len(held.spent)


def test_an_indivisible_phase_is_paid_whole_when_it_begins(world: World) -> None:
    budget = world.budget()
    job, _ = world.submit([(world.file(budget), budget, [Priced(0.01, 1.0, 50, indivisible=True)])])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
        assert work.authorise(c, lease, 0, 3) == 50
        assert work.authorise(c, lease, 0, 3) == 0
    with world.worker.begin() as c:
        settle(c, job, "cancelled", lease.fence)
    assert world.balance(budget).spent == accounting.cost(world.price(budget, 1.0, 0.01), 50)


def test_a_phase_may_name_a_proven_curve_and_no_other(world: World) -> None:
    budget = world.budget()
    wanted = world.balance(budget).filter.orders
    proven = [*wanted, 500]  # at more orders than this budget asks for
    values = {"description": "d", "proof": "p", "indivisible": True}
    with world.admin.begin() as c:
        step = [10**10 * a for a in proven]
        c.execute(curve.insert().values(id="shuffled", orders=proven, step_cost=step, **values))
        c.execute(curve.insert().values(id="elsewhere", orders=proven[1:], step_cost=step[1:], **values))
    file, job, resv = world.file(budget), new_id("ftjob", "-"), new_id("resv")
    with world.api.begin() as c:
        world.job_rows(c, job, [(file, budget)])
        c.execute(sa.text("INSERT INTO ledger.work (job_id) VALUES (:j)"), {"j": job})
        c.execute(reservation.insert().values(id=resv, job_id=job, file_id=file, budget_id=budget))
        c.execute(phase.insert().values(reservation_id=resv, ordinal=0, curve_id="shuffled", steps_max=3))
        c.execute(
            sa.text("INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES (:b, 'reserve', :r)"),
            {"b": budget, "r": resv},
        )
    assert world.balance(budget).reserved == tuple(3 * 10**10 * a for a in wanted)
    for unusable in ("unknown", "elsewhere"):
        with pytest.raises(sa.exc.IntegrityError), world.api.begin() as c:
            job, resv = new_id("ftjob", "-"), new_id("resv")
            world.job_rows(c, job, [(file, budget)])
            c.execute(reservation.insert().values(id=resv, job_id=job, file_id=file, budget_id=budget))
            c.execute(phase.insert().values(reservation_id=resv, ordinal=1, curve_id=unusable, steps_max=3))


def test_a_reservation_past_its_age_gets_no_more_steps(world: World) -> None:
    budget = world.budget()
    lease = claimed(world, budget, Priced(0.01, 1.0, 10))
    with world.admin.begin() as c:
        c.execute(reservation.update().where(reservation.c.job_id == lease.job_id).values(expires_at=sa.func.now()))
    with pytest.raises(ReservationExpired), world.worker.begin() as c:
        work.authorise(c, lease, 0, 1)


def test_repricing_follows_the_pricing_function_over_all_history(world: World) -> None:
    """As after a corrected accountant: dearer by half, for settled and open reservations alike."""
    budget = world.budget()
    lease = claimed(world, budget, Priced(0.01, 1.0, 100))
    with world.worker.begin() as c:
        work.authorise(c, lease, 0, 40)
        settle(c, lease.job_id, "succeeded", lease.fence)
    claimed(world, budget, Priced(0.01, 2.0, 30))
    before = world.balance(budget)
    with world.admin.connect() as c:
        transaction = c.begin()
        c.exec_driver_sql("ALTER FUNCTION ledger.poisson_gaussian_curve(float8, float8, int[]) RENAME TO old_curve")
        c.exec_driver_sql(
            "CREATE FUNCTION ledger.poisson_gaussian_curve(s float8, q float8, o int[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE"
            " AS 'SELECT array_agg(x * 3 / 2 ORDER BY i) FROM unnest(ledger.old_curve(s, q, o)) WITH ORDINALITY AS u (x, i)'"
        )
        policy.reprice(c, KEY, budget, "accountant version 2")
        row = c.execute(sa.text("SELECT spent, reserved FROM ledger.budget WHERE id = :b"), {"b": budget}).one()
        transaction.rollback()
    for old, new in ((before.spent, row.spent), (before.reserved, row.reserved)):
        assert any(old)
        assert all(abs(int(n) - 1.5 * o) <= 100 for o, n in zip(old, new, strict=True))


def test_lifecycle_statements_need_a_reason(world: World) -> None:
    budget = world.budget()
    with pytest.raises(sa.exc.IntegrityError), world.api.begin() as c, translated():
        policy.freeze(c, budget, "")
