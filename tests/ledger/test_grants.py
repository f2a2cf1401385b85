"""Grants and approvals as the database holds them: no bug of the service and no race gets past a sub-limit."""

import copy
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.jobs.expiry import end_expired
from domain.kit import tables
from domain.kit.ids import new_id
from dpcore.terms import accounting
from ledger import grants, policy, work
from ledger.errors import (
    AlreadyGranted,
    BudgetExceeded,
    GrantEnded,
    GrantExceeded,
    NotGranted,
    NotWaiting,
    ReservationExpired,
    WaitsForApproval,
)
from ledger.reserve import Priced, settle
from ledger.tables import budget_grant, phase, reservation
from ledger.verify import verify_budget
from tests.ledger import contenders
from tests.ledger.worlds import World

PROCESSES, EACH, ROOM = 16, 8, 40


def analyst(world: World, project: str | None = None) -> World:
    return another(world, "analyst", project)


def another(world: World, scope: str, project: str | None = None) -> World:
    """The same world, seen by a new key."""
    key = new_id("key")
    with world.api.begin() as c:
        values = {"id": key, "tenant_id": world.tenant, "name": "a", "prefix": "tacit_", "mac": key.encode()}
        c.execute(tables.api_key.insert().values(**values, scopes=[scope], project=project))
    other = copy.copy(world)
    other.key = key
    return other


def give(
    world: World,
    budget: str,
    epsilon: str | None = None,
    above: str | None = None,
    share: str | None = None,
    expires_at: datetime | None = None,
    models: list[str] | None = None,
    steps: int | None = None,
    methods: list[str] | None = None,
    **grantee: str,
) -> str:
    made = new_id("grant")
    with world.api.begin() as c:
        grants.give(
            c,
            budget,
            grant_id=made,
            key=grantee.get("key"),
            project=grantee.get("project"),
            terms=grants.GrantTerms(
                epsilon=None if epsilon is None else Decimal(epsilon),
                share=None if share is None else Decimal(share),
                approval_above=None if above is None else Decimal(above),
                expires_at=expires_at,
                models=models,
                methods=methods,
                most_steps=steps,
            ),
            by=world.key,
        )
    return made


def held(world: World, grant: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    with world.api.connect() as c:
        row = c.execute(sa.select(budget_grant).where(budget_grant.c.id == grant)).one()
    return tuple(row.spent), tuple(int(x) for x in row._mapping["reserved"])


def sound(world: World, budget: str) -> None:
    with world.api.connect() as c:
        assert verify_budget(c, budget) == []


def job_of(world: World, budget: str, epsilon: float, steps: int = 100) -> Priced:
    """A phase that alone takes at most this epsilon of the empty budget."""
    b = world.balance(budget)
    return Priced(0.01, accounting.calibrate(epsilon, b.delta, b.filter, (accounting.Part(0.01, steps),)), steps)


def test_a_key_uses_a_budget_by_its_own_grant_before_its_projects_and_by_none_not_at_all(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    ann, bob = analyst(world, "lab"), analyst(world)
    charge = [(file, budget, [job_of(world, budget, 1.0)])]
    with pytest.raises(NotGranted):
        ann.submit(charge)
    lab = give(world, budget, project="lab")
    ann.submit(charge)
    own = give(world, budget, "2", key=ann.key)
    job, _ = ann.submit(charge)
    with pytest.raises(NotGranted):
        bob.submit(charge)
    world.submit(charge)  # a steward needs none
    with world.api.connect() as c:
        named = c.execute(
            sa.select(reservation.c.grant_id)
            .where(reservation.c.budget_id == budget)
            .order_by(reservation.c.created_at)
        )
        assert named.scalars().all() == [lab, own, None]
    with pytest.raises(AlreadyGranted):
        give(world, budget, key=ann.key)
    with world.api.begin() as c:
        grants.revoke(c, budget, own, world.key)
        grants.revoke(c, budget, lab, world.key)
    with pytest.raises(NotGranted):
        ann.submit(charge)
    with world.worker.begin() as c:  # what was reserved goes on
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
        assert work.authorise(c, lease, 0, 10) == 10
        settle(c, job, "cancelled", lease.fence)
    assert held(world, own)[1] == world.nothing(budget)
    assert any(held(world, own)[0])
    sound(world, budget)


def test_a_sub_limit_refuses_while_the_budget_has_room_and_gives_back_exactly(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    ann = analyst(world)
    grant = give(world, budget, "2", key=ann.key)
    job, _ = ann.submit([(file, budget, [job_of(world, budget, 2.0)])])  # a job of all of it always fits
    small = [(file, budget, [job_of(world, budget, 0.6)])]
    with pytest.raises(GrantExceeded):
        ann.submit(small)
    world.submit(small)
    with world.api.begin() as c:
        settle(c, job, "cancelled")
    assert held(world, grant) == (world.nothing(budget), world.nothing(budget))
    ann.submit(small)
    with pytest.raises(BudgetExceeded):
        world.submit([(file, budget, [job_of(world, budget, 8.0)])])
    with pytest.raises(GrantExceeded):
        give(world, budget, "0.0001", project="x")  # no order has any room
    sound(world, budget)


def test_no_login_of_a_service_writes_a_grant_or_lifts_a_wait(world: World) -> None:
    budget = world.budget("8")
    ann = analyst(world)
    grant = give(world, budget, "1", key=ann.key)
    statements = [
        f"UPDATE ledger.budget_grant SET epsilon = 9 WHERE id = '{grant}'",
        f"UPDATE ledger.budget_grant SET spent = reserved WHERE id = '{grant}'",
        f"UPDATE ledger.budget_grant SET revoked_at = NULL WHERE id = '{grant}'",
        f"DELETE FROM ledger.budget_grant WHERE id = '{grant}'",
        "UPDATE ledger.reservation SET waits = false",
        "UPDATE ledger.reservation SET grant_id = NULL",
        f"UPDATE ledger.budget SET approval_above = NULL WHERE id = '{budget}'",
        f"UPDATE api_key SET project = 'lab' WHERE id = '{ann.key}'",
        f"UPDATE api_key SET scopes = '{{admin}}' WHERE id = '{ann.key}'",
        f"INSERT INTO ledger.budget_grant (id, budget_id) VALUES ('x', '{budget}')",
    ]
    for engine in (world.api, world.worker):
        for statement in statements:
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), engine.begin() as c:
                c.execute(sa.text(statement))
    with pytest.raises(sa.exc.ProgrammingError, match="not that of a steward"), world.api.begin() as c:
        grants.give(c, budget, grant_id="x", key=ann.key, project=None, terms=grants.GrantTerms(), by=ann.key)


def test_16_processes_on_one_sub_limit_get_exactly_what_fits(world: World) -> None:
    budget = world.budget("50")
    file = world.file(budget)
    ann = analyst(world)
    grant = give(world, budget, "8", key=ann.key)
    with world.api.connect() as c:
        cap = c.execute(sa.select(budget_grant.c.cap).where(budget_grant.c.id == grant)).scalar_one()
    curve = world.price(budget, 1.6595, 0.01)
    steps = max(a // k for a, k in zip(cap, curve, strict=True)) // ROOM
    assert max(a // (k * steps) for a, k in zip(cap, curve, strict=True)) == ROOM
    start, answers = contenders.APART.Barrier(PROCESSES), contenders.APART.Queue()
    job = Priced(0.01, 1.6595, steps)
    arguments = (world.database.api_url, world.tenant, ann.key, file, budget, job, EACH, start, answers)
    processes = [contenders.APART.Process(target=contenders.submit_often, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    seen: Counter[str] = Counter()
    for _ in processes:
        seen.update(answers.get(timeout=300))
    for process in processes:
        process.join(60)
    assert seen == {"admitted": ROOM, "23514": PROCESSES * EACH - ROOM}
    assert held(world, grant) == (
        world.nothing(budget),
        tuple(min(k * steps, accounting.SATURATION) * ROOM for k in curve),
    )
    sound(world, budget)


def test_a_share_holds_at_the_main_order_alone_and_moves_with_the_limit(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    ann = analyst(world)
    grant = give(world, budget, share="0.25", key=ann.key)
    b, main = world.balance(budget), world.balance(budget).filter.main

    def quarter(steps: int = 100) -> list[Priced]:
        """A job of so many steps that just stays within a quarter of the main order."""
        noise = accounting.calibrate_share(0.25, b.cap, b.filter, (accounting.Part(0.01, steps),))
        return [Priced(0.01, noise, steps)]

    first, _ = ann.submit([(file, budget, quarter())])
    assert held(world, grant)[1][main] <= b.cap[main] // 4
    # Somewhere else there is room, in the budget and beside the grant's own use: a share is of the main order.
    with pytest.raises(GrantExceeded):
        ann.submit([(file, budget, quarter(5))])
    world.submit([(file, budget, quarter(5))])
    with world.api.begin() as c:
        settle(c, first, "cancelled")
        policy.lower_limit(c, budget, Decimal(7), "a quieter year")
    with pytest.raises(GrantExceeded):  # a quarter of what was
        ann.submit([(file, budget, quarter())])
    sound(world, budget)
    low = world.balance(budget)
    noise = accounting.calibrate_share(0.25, low.cap, low.filter, (accounting.Part(0.01, 100),))
    second, _ = ann.submit([(file, budget, [Priced(0.01, noise, 100)])])
    with world.api.begin() as c:
        policy.lower_limit(c, budget, Decimal(6), "quieter still")  # the grant has more than a quarter now
    with pytest.raises(GrantExceeded):
        ann.submit([(file, budget, [Priced(0.01, 900.0, 1)])])
    with world.worker.begin() as c:  # what was reserved goes on
        lease = work.claim(c, second, "w", 60)
        assert lease is not None
        assert work.authorise(c, lease, 0, 100) == 100
        settle(c, second, "succeeded", lease.fence)
    sound(world, budget)
    with world.admin.begin() as c:
        policy.raise_limit(c, Ed25519PrivateKey.generate(), budget, Decimal(8), "as it was")
    ann.submit([(file, budget, [Priced(0.01, 900.0, 1)])])
    sound(world, budget)


def test_a_grant_that_has_ended_admits_nothing_and_what_it_admitted_goes_on(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    ann = analyst(world, "lab")
    with pytest.raises(sa.exc.IntegrityError, match="ends in the future"):
        give(world, budget, key=ann.key, expires_at=datetime.now(UTC))
    soon = give(world, budget, above="1", key=ann.key, expires_at=datetime.now(UTC) + timedelta(days=9))
    small, large = (([(file, budget, [job_of(world, budget, epsilon)])]) for epsilon in (0.5, 1.5))
    running, queued, waiting = ann.submit(small)[0], ann.submit(small)[0], ann.submit(large)[0]
    with world.worker.begin() as c:
        lease = work.claim(c, running, "w", 60)
        assert lease is not None
        work.authorise(c, lease, 0, 10)
    with world.root.begin() as c:  # nine days later
        c.execute(sa.text("SET session_replication_role = replica"))
        c.execute(sa.update(budget_grant).where(budget_grant.c.id == soon).values(expires_at=sa.func.now()))
    with pytest.raises(NotGranted):
        ann.submit(small)
    with pytest.raises(GrantEnded), world.api.begin() as c:
        grants.approve(c, waiting, world.key)
    with world.worker.begin() as c:
        assert work.authorise(c, lease, 0, 10) == 10
        settle(c, running, "succeeded", lease.fence)
        assert work.claim(c, queued, "w", 60) is not None
    give(world, budget, project="lab", expires_at=datetime.now(UTC) + timedelta(days=9))
    ann.submit(small)  # by its project's grant


def test_a_job_above_the_threshold_waits_for_somebody_elses_word(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    other = another(world, "steward")
    with world.api.begin() as c:
        grants.set_rules(c, budget, approval_above=Decimal("2"), queue_days=3, by=world.key, reason="large ones")
    at, _ = world.submit([(file, budget, [job_of(world, budget, 2.0)])])
    above, _ = world.submit([(file, budget, [job_of(world, budget, 2.05)])])
    with world.worker.begin() as c:
        assert work.claim(c, at, "w", 60) is not None
        assert work.claim(c, above, "w", 60) is None
        with pytest.raises(sa.exc.DBAPIError) as forced, c.begin_nested():  # not even by a worker of its own mind
            c.execute(sa.text("UPDATE ledger.work SET fence = fence + 1 WHERE job_id = :j"), {"j": above})
        assert contenders.answer(forced.value) == "TC008"
    with world.api.begin() as c:
        for by in (world.key, analyst(world).key):
            with pytest.raises(sa.exc.ProgrammingError), c.begin_nested():
                grants.approve(c, above, by)
        grants.approve(c, above, other.key)
        with pytest.raises(NotWaiting):
            grants.approve(c, above, other.key)
    with world.worker.begin() as c:
        lease = work.claim(c, above, "w", 60)
        assert lease is not None
        assert work.authorise(c, lease, 0, 1) == 1
    sound(world, budget)


def test_authorising_wants_the_approval_too(world: World) -> None:
    budget = world.budget()
    job, _ = world.submit([(world.file(budget), budget, [Priced(0.01, 1.5, 10)])])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
    with world.admin.begin() as c:
        c.execute(sa.update(reservation).where(reservation.c.job_id == job).values(waits=True))
    with pytest.raises(WaitsForApproval), world.worker.begin() as c:
        work.authorise(c, lease, 0, 1)
    with world.api.connect() as c:
        assert [f.what for f in verify_budget(c, budget)] == [
            f"reservation {c.execute(sa.select(reservation.c.id).where(reservation.c.job_id == job)).scalar_one()} "
            "has an approval that the entries do not have"
        ]


def test_what_nobody_began_or_approved_in_time_is_given_up(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    ann = analyst(world)
    give(world, budget, above="1", key=ann.key)
    charge = [(file, budget, [job_of(world, budget, 1.5)])]
    queued, _ = world.submit(charge)
    waiting, _ = ann.submit(charge)
    begun, _ = world.submit(charge)
    fresh, _ = world.submit(charge)
    with world.worker.begin() as c:
        lease = work.claim(c, begun, "w", 60)
        assert lease is not None
        assert work.authorise(c, lease, 0, 10) == 10
        work.drop(c, lease)
    with world.admin.begin() as c:
        late = reservation.c.job_id.in_([queued, waiting, begun])
        c.execute(sa.update(reservation).where(late).values(starts_by=sa.func.clock_timestamp()))
    with pytest.raises(ReservationExpired), world.api.begin() as c:
        grants.approve(c, waiting, world.key)
    assert sorted(end_expired(world.api)) == sorted([queued, waiting])
    assert end_expired(world.worker) == []
    with world.api.connect() as c:
        rows = c.execute(
            sa.select(tables.job.c.id, tables.job.c.status, tables.job.c.status_detail).where(
                tables.job.c.id.in_([queued, waiting, begun, fresh])
            )
        )
        assert {r.id: (r.status, r.status_detail) for r in rows} == {
            queued: ("cancelled", "expired"),
            waiting: ("cancelled", "expired"),
            begun: ("queued", None),
            fresh: ("queued", None),
        }
        said = sa.select(tables.job_event.c.message).where(tables.job_event.c.job_id == waiting)
        assert "no steward approved" in c.execute(said).scalar_one()
    phase = charge[0][2][0]
    two = 2 * accounting.cost(world.price(budget, phase.noise_multiplier, phase.sample_rate), 100)[0]
    assert world.balance(budget).reserved[0] == two
    sound(world, budget)


def test_a_repricing_moves_grants_and_revokes_what_it_leaves_overspent(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    ann, bob = analyst(world), analyst(world)
    tight, roomy = give(world, budget, "2", key=ann.key), give(world, budget, key=bob.key)
    for who in (ann, bob):
        job, _ = who.submit([(file, budget, [job_of(world, budget, 1.0)])])
        with world.worker.begin() as c:
            lease = work.claim(c, job, "w", 60)
            assert lease is not None
            work.authorise(c, lease, 0, 50)
            settle(c, job, "succeeded", lease.fence)
        who.submit([(file, budget, [job_of(world, budget, 1.2)])])
    before = held(world, tight)
    with world.root.begin() as c:  # what was paid too cheaply once
        ours = sa.select(reservation.c.id).where(reservation.c.budget_id == budget)
        c.execute(sa.text("SET session_replication_role = replica"))
        c.execute(sa.update(phase).where(phase.c.reservation_id.in_(ours)).values(noise_multiplier=0.7))
    with world.admin.begin() as c:
        policy.reprice(c, Ed25519PrivateKey.generate(), budget, "the noise was less than was said")
    assert all(a > b for a, b in zip(held(world, tight)[1], before[1], strict=True))
    with world.api.connect() as c:
        revoked = dict(c.execute(sa.select(budget_grant.c.id, budget_grant.c.revoked_at.is_not(None))).all())  # type: ignore[arg-type]
    assert (revoked[tight], revoked[roomy]) == (True, False)
    sound(world, budget)


TAMPERING = {
    "a raised sub-limit": "UPDATE ledger.budget_grant SET epsilon = 5, cap = ledger.caps(5, b.delta, b.orders, b.weight_numerators, b.weight_denominator) FROM ledger.budget b WHERE b.id = budget_id AND budget_id = :b",
    "a raised cap": "UPDATE ledger.budget_grant SET cap[3] = cap[3] + 1 WHERE budget_id = :b",
    "other models": """UPDATE ledger.budget_grant SET models = '["larger"]' WHERE budget_id = :b""",
    "more steps": "UPDATE ledger.budget_grant SET most_steps = 900 WHERE budget_id = :b",
    "a later end": "UPDATE ledger.budget_grant SET expires_at = expires_at + interval '1 day' WHERE budget_id = :b",
    "a share for an epsilon": "UPDATE ledger.budget_grant SET share = 1, epsilon = NULL WHERE budget_id = :b",
    "a lifted wish to know": "UPDATE ledger.budget SET require_intended_use = false WHERE id = :b",
    "a changed balance": "UPDATE ledger.budget_grant SET spent[3] = spent[3] - 1 WHERE budget_id = :b",
    "a changed reservation": "UPDATE ledger.budget_grant SET reserved[3] = reserved[3] - 1 WHERE budget_id = :b",
    "another grantee": "UPDATE ledger.budget_grant SET key_id = NULL, project = 'lab' WHERE budget_id = :b",
    "a lifted revocation": "UPDATE ledger.budget_grant SET revoked_at = NULL WHERE budget_id = :b",
    "a deleted grant": "DELETE FROM ledger.budget_grant WHERE budget_id = :b",
    "a charge without its grant": "UPDATE ledger.reservation SET grant_id = NULL WHERE budget_id = :b",
    "a lifted rule": "UPDATE ledger.budget SET approval_above = NULL WHERE id = :b",
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_with_rights_is_found(world: World, what: str) -> None:
    budget = world.budget()
    file = world.file(budget)
    ann = analyst(world)
    grant = give(
        world, budget, "4", key=ann.key, expires_at=datetime.now(UTC) + timedelta(days=9), models=["m"], steps=500
    )
    for _ in range(2):
        job, _ = ann.submit([(file, budget, [Priced(0.01, 1.5, 100)])])
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
        work.authorise(c, lease, 0, 40)
        settle(c, job, "succeeded", lease.fence)
    with world.api.begin() as c:
        rules = {"approval_above": Decimal("2"), "queue_days": 3, "require_intended_use": True}
        grants.set_rules(c, budget, **rules, by=world.key, reason="r")
        grants.revoke(c, budget, grant, world.key)
    sound(world, budget)
    with world.root.begin() as c:
        c.execute(sa.text("SET session_replication_role = replica"))
        assert c.execute(sa.text(TAMPERING[what]), {"b": budget}).rowcount > 0
    with world.api.connect() as c:
        assert verify_budget(c, budget) != []
