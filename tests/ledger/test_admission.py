"""What the database admits, refuses and gives back, with the service's own check nowhere in sight."""

import itertools
from concurrent.futures import ProcessPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa

from domain.kit.ids import new_id
from dpcore.terms import accounting
from ledger import work
from ledger.budgets import Reference
from ledger.errors import AlreadySettled, BudgetExceeded, StaleFence, StepsExhausted, StopRequested
from ledger.reserve import Priced, settle
from ledger.tables import authorisation, budget, entry, phase, reservation
from tests.ledger import contenders
from tests.ledger.worlds import REFERENCE_JOB, World


def settled_steps(
    world: World, job: str, outcome: str, authorised: int, steps: int = 100
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Reserve `steps`, authorise some, settle; answers (spent, one step's cost)."""
    budget_id = world.budget()
    job, _ = world.submit([(world.file(budget_id), budget_id, [Priced(0.01, 1.0, steps)])])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
    if authorised:
        with world.worker.begin() as c:
            assert work.authorise(c, lease, 0, authorised) == authorised
    with world.worker.begin() as c:
        settle(c, job, outcome, lease.fence)  # type: ignore[arg-type]
    price = world.price(budget_id, 1.0, 0.01)
    after = world.balance(budget_id)
    assert after.reserved == after.filter.nothing
    return after.spent, price


@pytest.mark.parametrize(
    ("outcome", "authorised", "charged"),
    [
        ("succeeded", 100, 100),
        ("succeeded", 60, 60),
        ("cancelled", 35, 35),
        ("cancelled", 0, 0),
        ("failed", 1, 100),
        ("failed", 0, 0),
    ],
)
def test_what_an_outcome_costs(world: World, outcome: str, authorised: int, charged: int) -> None:
    spent, price = settled_steps(world, new_id("ftjob", "-"), outcome, authorised)
    assert spent == tuple(charged * k for k in price)


def test_the_reference_job_fits_54_times_and_the_55th_is_refused_by_the_database(world: World) -> None:
    budget_id = world.budget()
    file = world.file(budget_id)
    for _ in range(54):
        world.submit([(file, budget_id, [REFERENCE_JOB])])
    with pytest.raises(BudgetExceeded) as refusal:
        world.submit([(file, budget_id, [REFERENCE_JOB])])
    cause = refusal.value.__cause__.orig  # type: ignore[union-attr]
    assert isinstance(cause, psycopg.errors.CheckViolation)
    assert cause.sqlstate == "23514"
    assert cause.diag.constraint_name == "never_overspent"


def test_racing_processes_are_admitted_exactly_as_far_as_there_is_room(world: World) -> None:
    budget_id = world.budget()
    file = world.file(budget_id)
    arguments = (world.database.api_url, world.tenant, world.key, file, budget_id, REFERENCE_JOB, 20)
    with ProcessPoolExecutor(6, mp_context=contenders.APART) as pool:
        admitted = [f.result() for f in [pool.submit(contenders.admitted, *arguments) for _ in range(6)]]
    assert sum(admitted) == 54
    held = world.balance(budget_id)
    assert accounting.fits(held.cap, held.spent, held.reserved)
    with world.api.connect() as c:
        seqs = (
            c.execute(sa.select(entry.c.seq).where(entry.c.budget_id == budget_id).order_by(entry.c.seq))
            .scalars()
            .all()
        )
    assert seqs == list(range(1, 56))  # the opening and 54 charges, no gap


def test_reserve_and_cancel_changes_nothing_even_when_an_order_saturates(world: World) -> None:
    """The saturation attacks: neither minting budget nor killing an order by a job that is cancelled with no step."""
    budget_id = world.budget()
    file = world.file(budget_id)
    loud = Priced(0.5, 0.3, 50_000)  # saturates the high orders, affordable at none
    before = world.balance(budget_id)
    with pytest.raises(BudgetExceeded):
        world.submit([(file, budget_id, [loud])])
    for _ in range(3):
        job, _ = world.submit([(file, budget_id, [Priced(0.01, 0.7, 400)])])
        with world.api.begin() as c:
            settle(c, job, "cancelled")
    assert world.balance(budget_id) == before


def test_a_job_over_two_budgets_is_charged_to_both_or_to_none(world: World) -> None:
    roomy, tight = world.budget("8"), world.budget("0.5", reference=Reference(0.01, 100))
    with pytest.raises(BudgetExceeded):
        world.submit([(world.file(roomy), roomy, [REFERENCE_JOB]), (world.file(tight), tight, [REFERENCE_JOB])])
    assert world.balance(roomy).used == world.nothing(roomy)
    small = Priced(0.01, 20.0, 10)
    job, receipts = world.submit([(world.file(roomy), roomy, [small]), (world.file(tight), tight, [small])])
    assert [r.budget_id for r in receipts] == sorted([roomy, tight])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
        assert work.authorise(c, lease, 0, 7) == 7
        assert work.authorise(c, lease, 0, 7) == 3
        assert work.authorise(c, lease, 0, 7) == 0
    with world.worker.begin() as c:
        settle(c, job, "succeeded", lease.fence)
    for one in (roomy, tight):
        assert world.balance(one).spent == accounting.cost(world.price(one, 20.0, 0.01), 10)


def test_a_late_worker_is_harmless(world: World) -> None:
    budget_id = world.budget()
    job, _ = world.submit([(world.file(budget_id), budget_id, [Priced(0.01, 1.0, 100)])])
    with world.worker.begin() as c:
        old = work.claim(c, job, "zombie", 0.05)
        assert old is not None
    with world.worker.begin() as c:
        c.execute(sa.text("SELECT pg_sleep(0.1)"))
        new = work.claim(c, job, "heir", 60)
        assert new is not None
        assert new.fence == old.fence + 1
    for act in (
        lambda c: work.authorise(c, old, 0, 1),
        lambda c: work.renew(c, old, 60),
        lambda c: settle(c, job, "succeeded", old.fence),
        lambda c: settle(c, job, "cancelled"),  # nobody settles past a live lease either
        lambda c: c.execute(
            sa.text(
                "INSERT INTO checkpoint (job_id, fence, step, blob) VALUES (:j, :f, 1, 'jobs/' || :j || '/checkpoints/b')"
            ),
            {"j": job, "f": old.fence},
        ),
    ):
        with pytest.raises((StaleFence, sa.exc.DBAPIError)), world.worker.begin() as c:
            act(c)
    with world.worker.begin() as c:
        assert work.claim(c, job, "third", 60) is None
        assert work.authorise(c, new, 0, 10) == 10


def test_a_stopped_or_settled_job_gets_no_more_steps(world: World) -> None:
    budget_id = world.budget()
    job, _ = world.submit([(world.file(budget_id), budget_id, [Priced(0.01, 1.0, 100)])])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
    with world.api.begin() as c:
        work.request_stop(c, job)
    with pytest.raises(StopRequested), world.worker.begin() as c:
        work.authorise(c, lease, 0, 1)
    with world.worker.begin() as c:
        assert work.renew(c, lease, 60) is True
        settle(c, job, "cancelled", lease.fence)
    with world.worker.begin() as c:
        assert settle(c, job, "cancelled", lease.fence) == []
    with world.worker.begin() as c:
        work.drop(c, lease)
        assert work.claim(c, job, "w", 60) is None


def test_what_the_service_logins_cannot_do(world: World) -> None:
    """Statements of a stolen login: each refused, balances untouched."""
    budget_id = world.budget()
    file = world.file(budget_id)
    job, _ = world.submit([(file, budget_id, [Priced(0.01, 1.0, 100)])])
    before = world.balance(budget_id)
    with world.api.connect() as c:
        resv = c.execute(sa.select(reservation.c.id).where(reservation.c.job_id == job)).scalar_one()
    statements = [
        f"UPDATE ledger.budget SET spent = array_fill(0::bigint, ARRAY[12]) WHERE id = '{budget_id}'",
        f"UPDATE ledger.budget SET cap = array_fill(9e15::bigint, ARRAY[12]) WHERE id = '{budget_id}'",
        f"UPDATE ledger.budget SET frozen_reason = 'x' WHERE id = '{budget_id}'",
        f"DELETE FROM ledger.budget WHERE id = '{budget_id}'",
        f"DELETE FROM ledger.entry WHERE budget_id = '{budget_id}'",
        "UPDATE ledger.entry SET spent_change = reserved_change::bigint[]",
        "TRUNCATE ledger.entry",
        f"UPDATE ledger.phase SET steps_authorised = 0 WHERE reservation_id = '{resv}'",
        f"UPDATE ledger.phase SET steps_max = 1 WHERE reservation_id = '{resv}'",
        f"UPDATE ledger.reservation SET state = 'settled' WHERE id = '{resv}'",
        f"INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) VALUES ('{resv}', 1, 1, 0.3, 9)",
        f"INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max, step_cost) VALUES ('{resv}', 1, 1, 1, 1, '{{1}}')",
        f"INSERT INTO ledger.entry (budget_id, kind, reservation_id, spent_change) VALUES ('{budget_id}', 'settle', '{resv}', '{{0}}')",
        f"INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES ('{resv}', 0, 99, 5)",
        f"UPDATE file SET budget_id = NULL WHERE id = '{file}'",
        "ALTER TABLE ledger.budget DISABLE TRIGGER ALL",
        "ALTER TABLE ledger.budget DROP CONSTRAINT never_overspent",
        "CREATE OR REPLACE FUNCTION ledger.fits(bigint[], bigint[], numeric[]) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "SET session_replication_role = replica",
        "SET ROLE tacit_admin",
        "SET ROLE tacit_owner",
        "SET SESSION AUTHORIZATION postgres",
        "SELECT ledger.require_fence('x', 1)",
    ]
    for login, engine in (("tacit_api", world.api), ("tacit_worker", world.worker)):
        for statement in statements:
            with pytest.raises(sa.exc.DBAPIError) as refused, engine.begin() as c:
                c.execute(sa.text(statement))
            print(f"{login:12} {refused.value.orig.sqlstate} {statement}")  # type: ignore[union-attr]
    assert world.balance(budget_id) == before


def test_a_reservation_without_its_charge_does_not_commit(world: World) -> None:
    budget_id = world.budget()
    file, job = world.file(budget_id), new_id("ftjob", "-")
    for steps in ("reservation only", "job only"):
        with pytest.raises(sa.exc.IntegrityError) as refusal, world.api.begin() as c:
            world.job_rows(c, job, [(file, budget_id)])
            if steps == "reservation only":
                c.execute(reservation.insert().values(id="resv_x", job_id=job, file_id=file, budget_id=budget_id))
                c.execute(
                    phase.insert().values(
                        reservation_id="resv_x", ordinal=0, sample_rate=0.01, noise_multiplier=1, steps_max=1
                    )
                )
        assert refusal.value.orig.sqlstate == "23000"  # type: ignore[union-attr]


def test_a_reservation_cannot_name_another_budget_than_its_files(world: World) -> None:
    mine, other = world.budget(), world.budget()
    with pytest.raises(sa.exc.IntegrityError):
        world.submit([(world.file(mine), other, [REFERENCE_JOB])])


def test_steps_beyond_the_reservation_are_refused_by_the_database(world: World) -> None:
    from ledger.errors import translated

    budget_id = world.budget()
    job, _ = world.submit([(world.file(budget_id), budget_id, [Priced(0.01, 1.0, 10)])])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
        resv = c.execute(sa.select(reservation.c.id).where(reservation.c.job_id == job)).scalar_one()
    with pytest.raises(StepsExhausted), world.worker.begin() as c, translated():
        c.execute(authorisation.insert().values(reservation_id=resv, ordinal=0, fence=lease.fence, steps=11))


def test_two_settlements_cannot_both_count(world: World) -> None:
    from ledger.errors import translated

    budget_id = world.budget()
    job, _ = world.submit([(world.file(budget_id), budget_id, [Priced(0.01, 1.0, 10)])])
    with world.api.connect() as c:
        resv = c.execute(sa.select(reservation.c.id).where(reservation.c.job_id == job)).scalar_one()
    with world.api.begin() as c:
        settle(c, job, "cancelled")
    with pytest.raises(AlreadySettled), world.api.begin() as c, translated():
        c.execute(entry.insert().values(budget_id=budget_id, kind="settle", reservation_id=resv, outcome="cancelled"))


def test_the_chain_and_the_balance_replay(world: World) -> None:
    """Entries add up to the balance, and each carries the hash of the one before."""
    with world.admin.connect() as c:
        for row in c.execute(sa.select(budget)):
            entries = c.execute(sa.select(entry).where(entry.c.budget_id == row.id).order_by(entry.c.seq)).all()
            assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
            assert all(a.hash == b.prev_hash for a, b in itertools.pairwise(entries))
            assert entries[-1].hash == row.head_hash
            assert [sum(x) for x in zip(*(e.spent_change for e in entries), strict=True)] == row.spent
            assert [sum(x) for x in zip(*(e.reserved_change for e in entries), strict=True)] == row.reserved
