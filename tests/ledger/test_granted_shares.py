"""Shares of grants beside their budget's, over random histories on the real ledger: what is shown adds up, what is shown as
fitting is admitted, and the database decides as the service does, whatever becomes of the limit meanwhile."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
import sqlalchemy as sa

from api.budgets.schemas import Budget, budget_of
from api.grants.schemas import Grant, grant_of
from domain.access.grants import HeldGrant, held_grant
from domain.jobs import planning
from domain.jobs.planning import Draft
from domain.kit.ids import new_id
from domain.kit.refusals import Invalid
from dpcore.terms.accounting import SHARE_DIGITS
from ledger import policy, work
from ledger.budgets import Balance, as_balance
from ledger.errors import BudgetExceeded, GrantExceeded
from ledger.reserve import Charge, reserve, settle
from ledger.tables import budget, budget_grant
from ledger.verify import verify_budget
from tests.ledger.test_grants import another, give
from tests.ledger.test_shares import BUDGETS, METHODS, phases_of, plan
from tests.ledger.worlds import World

ACTS = 8
SHARES = {"ann": "0.25", "bob": "0.6", "cal": "0.333333"}
STEP = 1 / SHARE_DIGITS


@dataclass
class Desk:
    """A budget with a grant by share for each of three analysts, and the jobs that they and the steward submitted."""

    world: World
    api: sa.Connection
    worker: sa.Connection
    id: str
    file: str
    draws: random.Random
    people: dict[str, World] = field(default_factory=dict)
    grants: dict[str, str] = field(default_factory=dict)
    open: list[tuple[str, Draft]] = field(default_factory=list)
    lowered: bool = False

    def look(self, who: str) -> tuple[Balance, Budget, HeldGrant | None, Grant | None]:
        """The budget and the grant of one of them, to reckon with and as the API shows them."""
        row = self.api.execute(sa.select(budget).where(budget.c.id == self.id)).one()
        held = as_balance(row)
        if who == "steward":
            return held, budget_of(row), None, None
        found = self.api.execute(sa.select(budget_grant).where(budget_grant.c.id == self.grants[who])).one()
        return held, budget_of(row), held_grant(found, held), grant_of(found, held)

    def ask(self) -> str:
        who = self.draws.choice([*SHARES, "steward"])
        held, shown, grant, its = self.look(who)
        left = shown.share_left if its is None or its.share_left is None else min(shown.share_left, its.share_left)
        share = self.draws.choice([left, left * self.draws.random(), self.draws.random()])
        try:
            draft = plan(held, self.draws.choice(METHODS), share=share)
        except Invalid as error:
            return error.code
        subs = [] if grant is None or grant.account is None else [grant.account]
        expected = shown.frozen_reason is None and all(planning.fits(draft, account) for account in [held, *subs])
        answer = self._submit(who, draft)
        assert (answer == "admitted") == expected
        assert answer == "admitted" or share > left
        self.adds_up()
        return answer

    def _submit(self, who: str, draft: Draft) -> str:
        id = new_id("ftjob", "-")
        try:
            self.people[who].job_rows(self.api, id, [(self.file, self.id)])
            reserve(self.api, id, [Charge(new_id("resv"), self.file, self.id, phases_of(draft))])
        except (BudgetExceeded, GrantExceeded) as error:
            self.api.rollback()
            return type(error).__name__
        self.api.commit()
        self.open.append((id, draft))
        return "admitted"

    def end(self) -> str:
        """One of the open jobs, at any of its steps and in any way."""
        if not self.open:
            return "none is open"
        id, draft = self.open.pop(self.draws.randrange(len(self.open)))
        how = self.draws.choice(["succeeded", "cancelled", "failed"])
        lease = work.claim(self.worker, id, "w", 60)
        assert lease is not None
        first = draft.program.phases[0]
        if steps := self.draws.randint(0, first.steps):
            work.authorise(self.worker, lease, 0, steps)
        settle(self.worker, id, how, lease.fence)  # type: ignore[arg-type]
        self.worker.commit()
        self.adds_up()
        return how

    def lower(self) -> str:
        """Once, and not so far that the budget is past it."""
        held = self.look("steward")[0]
        if self.lowered or held.used[held.filter.main] > held.cap[held.filter.main] // 3:
            return "not lowered"
        self.lowered = True
        policy.lower_limit(self.api, self.id, Decimal(str(held.epsilon)) * Decimal("0.9"), "a quieter year")
        self.api.commit()
        self.adds_up()
        return "lowered"

    def adds_up(self) -> None:
        """The parts that are shown, each rounded up, make up what is gone; what is left of a grant is the rest of it."""
        _, shown, _, _ = self.look("steward")
        if shown.share_spent is None or shown.share_reserved is None:
            return
        assert abs(1 - shown.share_left - shown.share_spent - shown.share_reserved) <= 3 * STEP or shown.share_left == 0
        gone = shown.share_spent + shown.share_reserved
        for who, share in SHARES.items():
            its = self.look(who)[3]
            assert its is not None
            assert its.share_spent is not None
            assert its.share_reserved is not None
            assert its.share_left is not None
            used = its.share_spent + its.share_reserved
            assert abs(float(share) - used - its.share_left) <= 3 * STEP or (its.share_left == 0 < used)
            gone -= used
        assert gone >= -9 * STEP  # the rest is the steward's own


@pytest.fixture
def connections(world: World) -> Iterator[tuple[sa.Connection, sa.Connection]]:
    with world.api.connect() as api, world.worker.connect() as worker:
        yield api, worker


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("histories", [20, pytest.param(200, marks=pytest.mark.verify)])
def test_shares_of_grants_add_up(
    world: World, connections: tuple[sa.Connection, sa.Connection], histories: int
) -> None:
    seen: set[str] = set()
    people = {name: another(world, "analyst") for name in SHARES}
    for number in range(histories):
        epsilon, delta, reference = BUDGETS[number % len(BUDGETS)]
        id = world.budget(epsilon, delta, reference)
        made = {name: give(world, id, share=share, key=people[name].key) for name, share in SHARES.items()}
        everybody = people | {"steward": world}
        desk = Desk(world, *connections, id, world.file(id), random.Random(number), everybody, made)
        acts: list[Callable[[], str]] = [desk.ask, desk.ask, desk.ask, desk.end, desk.lower]
        seen |= {desk.draws.choice(acts)() for _ in range(ACTS)}
        connections[0].rollback()
        if number % 20 == 0:
            assert not [found for found in verify_budget(connections[0], id) if "grant" in found.what]
            connections[0].rollback()
    wanted = {"admitted", "GrantExceeded", "BudgetExceeded", "lowered", "succeeded", "cancelled", "failed"}
    assert wanted <= seen, seen
