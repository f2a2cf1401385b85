"""Random lives of grants beside their budget: two analysts, a steward who gives, revokes and approves, workers."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dpcore.terms import accounting
from ledger import grants, work
from ledger.errors import AlreadyGranted, BudgetExceeded, GrantExceeded, LedgerError, NotGranted, NotWaiting
from ledger.reserve import Priced, settle
from ledger.tables import budget_grant, reservation
from ledger.verify import verify_budget
from tests.conftest import Database
from tests.ledger.test_grants import another, give
from tests.ledger.worlds import World

MUST_HAPPEN = {
    "done",
    "GrantExceeded",
    "BudgetExceeded",
    "NotGranted",
    "waits",
    "AlreadyGranted",
    "approved",
    "settled",
}
"""Otherwise the sample shows nothing."""
who = st.sampled_from(["ann", "bob", "steward"])
SUB_LIMITS, THRESHOLDS = st.sampled_from(["1.5", "3", None]), st.sampled_from(["1", None])
EPSILONS = st.sampled_from([0.7, 1.2, 2.5, 4.0])


@dataclass
class Pass:
    """What a grant should hold."""

    id: str
    grantee: str
    cap: tuple[int, ...] | None
    approval_above: float | None
    spent: list[int]
    reserved: list[int]
    live: bool = True


@dataclass
class Job:
    """What a job should be charged to."""

    id: str
    paid_by: Pass | None
    step: tuple[int, ...]
    steps: int
    waits: bool
    done: int = 0
    lease: work.Lease | None = None

    def price(self, steps: int) -> list[int]:
        return [k * steps for k in self.step]


class GrantLife(RuleBasedStateMachine):
    """ann has a key of her own, bob works under a project's grants."""

    world: World
    happened: Counter[str]

    @initialize()
    def open(self) -> None:
        self.budget = self.world.budget("4")
        self.file = self.world.file(self.budget)
        self.balance = self.world.balance(self.budget)
        self.people = {
            "ann": another(self.world, "analyst"),
            "bob": another(self.world, "analyst", "lab"),
            "steward": self.world,
        }
        self.second = another(self.world, "steward")
        self.passes: list[Pass] = []
        self.jobs: list[Job] = []
        self.free_spent, self.free_reserved = (
            list(self.balance.filter.nothing),
            list(self.balance.filter.nothing),
        )  # by the steward's own jobs
        self.give("ann", "3", "1")
        self.give("bob", "1.5", None)

    def of(self, grantee: str) -> Pass | None:
        return next((p for p in self.passes if p.grantee == grantee and p.live), None)

    @rule(grantee=st.sampled_from(["ann", "bob"]), epsilon=SUB_LIMITS, above=THRESHOLDS, again=st.booleans())
    def give_or_revoke(self, grantee: str, epsilon: str | None, above: str | None, again: bool) -> None:
        held = self.of(grantee)
        if held is None:
            self.give(grantee, epsilon, above)
        elif again:
            with pytest.raises(AlreadyGranted):
                self.give(grantee, epsilon, above)
            self.happened["AlreadyGranted"] += 1
        else:
            with self.world.api.begin() as c:
                grants.revoke(c, self.budget, held.id, self.world.key)
            held.live = False

    def give(self, grantee: str, epsilon: str | None, above: str | None) -> None:
        named = {"key": self.people["ann"].key} if grantee == "ann" else {"project": "lab"}
        made = give(self.world, self.budget, epsilon, above, **named)
        cap = None
        if epsilon is not None:
            with self.world.api.connect() as c:
                caps = sa.func.ledger.caps(Decimal(epsilon), *self._terms(c))
                cap = tuple(c.execute(sa.select(caps)).scalar_one())
        nothing = list(self.balance.filter.nothing)
        self.passes.append(Pass(made, grantee, cap, float(above) if above else None, nothing, nothing))

    def _terms(self, c: sa.Connection) -> tuple[object, ...]:
        wanted = "SELECT delta, orders, weight_numerators, weight_denominator FROM ledger.budget WHERE id = :b"
        return tuple(c.execute(sa.text(wanted), {"b": self.budget}).one())

    @rule(name=who, epsilon=EPSILONS)
    def submit(self, name: str, epsilon: float) -> None:
        b = self.balance
        job = Priced(0.01, accounting.calibrate(epsilon, b.delta, b.filter, (accounting.Part(0.01, 50),)), 50)
        step = self.world.price(self.budget, job.noise_multiplier, job.sample_rate)
        paid_by = self.of(name)
        more = [k * 50 for k in step]
        used = [sum(x) for x in zip(*self._all(), strict=True)]
        expected: type[LedgerError] | None = None
        if name != "steward" and paid_by is None:
            expected = NotGranted
        elif not accounting.fits(b.cap, used, more):
            expected = BudgetExceeded
        elif paid_by and paid_by.cap and not accounting.fits(paid_by.cap, _sum(paid_by.spent, paid_by.reserved), more):
            expected = GrantExceeded
        if expected:
            with pytest.raises(expected):
                self.people[name].submit([(self.file, self.budget, [job])])
            self.happened[expected.__name__] += 1
            return
        id, _ = self.people[name].submit([(self.file, self.budget, [job])])
        waits = bool(paid_by and paid_by.approval_above and epsilon > paid_by.approval_above)
        self.jobs.append(Job(id, paid_by, step, 50, waits))
        if paid_by:
            paid_by.reserved = _sum(paid_by.reserved, more)
        self.free_reserved = _sum(self.free_reserved, more) if paid_by is None else self.free_reserved
        self.happened["waits" if waits else "done"] += 1

    def _all(self) -> list[list[int]]:
        held = [x for p in self.passes for x in (p.spent, p.reserved)]
        return [*held, self.free_spent, self.free_reserved]

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 99))
    def approve(self, number: int) -> None:
        job = self.jobs[number % len(self.jobs)]
        with self.world.api.begin() as c:
            if not job.waits:
                with pytest.raises(NotWaiting):
                    grants.approve(c, job.id, self.second.key)
                return
            grants.approve(c, job.id, self.second.key)
        job.waits = False
        self.happened["approved"] += 1

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 99), steps=st.sampled_from([1, 20, 100]))
    def run(self, number: int, steps: int) -> None:
        job = self.jobs[number % len(self.jobs)]
        with self.world.worker.begin() as c:
            if job.lease is None:
                job.lease = work.claim(c, job.id, "w", 600)
                assert (job.lease is None) == job.waits
            if job.lease is not None:
                job.done += work.authorise(c, job.lease, 0, steps)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 99), outcome=st.sampled_from(["succeeded", "cancelled", "failed"]))
    def end(self, number: int, outcome: str) -> None:
        job = self.jobs.pop(number % len(self.jobs))
        engine, fence = (self.world.api, None) if job.lease is None else (self.world.worker, job.lease.fence)
        with engine.begin() as c:
            settle(c, job.id, outcome, fence)  # type: ignore[arg-type]
        owed = job.price(job.steps if outcome == "failed" and job.done else job.done)
        back = [-k for k in job.price(job.steps)]
        if job.paid_by:
            job.paid_by.spent, job.paid_by.reserved = _sum(job.paid_by.spent, owed), _sum(job.paid_by.reserved, back)
        else:
            self.free_spent, self.free_reserved = _sum(self.free_spent, owed), _sum(self.free_reserved, back)
        self.happened["settled"] += 1

    @invariant()
    def every_grant_holds_what_it_should(self) -> None:
        if not hasattr(self, "budget"):
            return
        with self.world.api.connect() as c:
            rows = {g.id: g for g in c.execute(sa.select(budget_grant).where(budget_grant.c.budget_id == self.budget))}
            open_ones = sa.select(reservation.c.job_id, reservation.c.grant_id, reservation.c.waits)
            open_ones = open_ones.where(reservation.c.budget_id == self.budget, reservation.c.state == "reserved")
            found = {r.job_id: (r.grant_id, r.waits) for r in c.execute(open_ones)}
        for p in self.passes:
            row = rows[p.id]._mapping
            assert (row["spent"], [int(x) for x in row["reserved"]]) == (p.spent, p.reserved)
            assert (row["revoked_at"] is None) == p.live
            assert p.cap is None or accounting.fits(p.cap, p.spent, p.reserved)
        assert found == {j.id: (j.paid_by.id if j.paid_by else None, j.waits) for j in self.jobs}
        held = self.world.balance(self.budget)
        assert list(held.used) == [sum(x) for x in zip(*self._all(), strict=True)]

    def teardown(self) -> None:
        if hasattr(self, "budget"):
            with self.world.api.connect() as c:
                assert verify_budget(c, self.budget) == []


def _sum(*amounts: list[int]) -> list[int]:
    return [sum(x) for x in zip(*amounts, strict=True)]


def test_lives_of_grants(module_database: Database) -> None:
    happened: Counter[str] = Counter()

    class Life(GrantLife):
        pass

    Life.world, Life.happened = World(module_database), happened
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert set(happened) >= MUST_HAPPEN, happened
