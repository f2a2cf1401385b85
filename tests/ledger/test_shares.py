"""Shares add up: over random histories on the real ledger, and over the phases of a job."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.budgets.schemas import budget_of
from domain.jobs import planning
from domain.jobs.planning import Dataset, Draft, at_main_order
from domain.kit.ids import new_id
from domain.kit.refusals import Invalid
from domain.kit.tables import job
from domain.models.allow_list import BaseModelFacts
from dpcore.terms.facts import ModelFacts
from ledger import work
from ledger.budgets import Balance, Reference, as_balance
from ledger.errors import BudgetExceeded
from ledger.reserve import Charge, Priced, reserve, settle
from ledger.tables import budget, phase, reservation
from tests.ledger.worlds import World

HISTORIES, BLOCKS, ACTS = 200, 4, 7
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2, "vocab_size": 100, "max_positions": 64}
MODEL = BaseModelFacts("base", Path("/nowhere"), ModelFacts(model_type="bert", biases=500, **SHAPE), "0" * 64, 0)
BUDGETS = [("8", "1e-5", Reference(0.05, 40)), ("2", "1e-6", Reference(0.01, 200)), ("0.5", "1e-5", Reference(0.1, 5))]
METHODS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("lora", {}, {"steps": 20, "batch_size": 50}),
    ("lora", {}, {"steps": 300, "batch_size": 4}),
    ("lora", {}, {"steps": 1, "batch_size": 1000}),
    ("distill", {}, {"steps": 15, "teacher_steps": 30, "batch_size": 100}),
    ("bitfit", {"full_steps": 5}, {"steps": 15, "batch_size": 100}),
]
TWO_PHASES = METHODS[-2:]


def plan(held: Balance, method: tuple[str, dict[str, Any], dict[str, Any]], **price: float | None) -> Draft:
    name, options, numbers = method
    return planning.draft(
        method=name,
        options=options,
        hyperparameters=numbers,
        **({"epsilon": None, "share": None} | price),  # type: ignore[arg-type]
        delta=None,
        seed=0,
        model=MODEL,
        dataset=Dataset("classification", 1000, 2, 64),
        budget=held,
    )


def phases_of(draft: Draft) -> list[Priced]:
    """As a submission names them."""
    return [Priced(p.mechanism.sample_rate, p.mechanism.noise_multiplier, p.steps) for p in draft.program.phases]


@dataclass
class History:
    """A budget, and the jobs that it admitted."""

    world: World
    api: sa.Connection
    worker: sa.Connection
    id: str
    file: str
    draws: random.Random
    open: dict[str, Draft] = field(default_factory=dict)
    by_main_order: list[str] = field(default_factory=list)

    def look(self) -> tuple[Balance, float]:
        """The balance, and what the API says is left."""
        row = self.api.execute(sa.select(budget).where(budget.c.id == self.id)).one()
        return as_balance(row), budget_of(row).share_left

    def ask(self) -> str:
        """A job by its share or by its epsilon; admitted when the service says so, and always within what is left."""
        held, left = self.look()
        method = self.draws.choice(METHODS)
        share = self.draws.choice([left, left * self.draws.random(), self.draws.random(), None])
        price = {"epsilon": self.draws.choice([0.1, 0.4, 1.5, 4.0])} if share is None else {"share": share}
        try:
            draft = plan(held, method, **price)
        except Invalid as error:
            return error.code
        admitted = self._submit(draft)
        assert admitted == planning.fits(draft, held)
        if share is not None and share <= left:
            assert admitted
            assert at_main_order(draft, held)
        if admitted and at_main_order(draft, held):
            self.by_main_order.append(next(reversed(self.open)))
        self._require_whole(held)
        return ("by share" if share is not None else "by epsilon") + (": admitted" if admitted else ": refused")

    def _submit(self, draft: Draft) -> bool:
        id = new_id("ftjob", "-")
        try:
            self.world.job_rows(self.api, id, [(self.file, self.id)])
            reserve(self.api, id, [Charge(new_id("resv"), self.file, self.id, phases_of(draft))])
        except BudgetExceeded:
            self.api.rollback()
            return False
        self.api.commit()
        self.open[id] = draft
        return True

    def end(self) -> str:
        """One of the open jobs, at any of its steps and in any way."""
        if not self.open:
            return "none is open"
        id = self.draws.choice(list(self.open))
        draft = self.open.pop(id)
        how = self.draws.choice(["succeeded", "cancelled", "failed"])
        lease = work.claim(self.worker, id, "w", 60)
        assert lease is not None
        for number, part in enumerate(draft.program.phases):
            if steps := self.draws.randint(0, part.steps):
                work.authorise(self.worker, lease, number, steps)
            if steps < part.steps:
                break
        settle(self.worker, id, how, lease.fence)  # type: ignore[arg-type]
        self.worker.commit()
        self._require_whole(self.look()[0])
        return how

    def _require_whole(self, held: Balance) -> None:
        """What the main order admitted is at most all of it."""
        charged = sa.case((reservation.c.state == "reserved", phase.c.steps_max), else_=phase.c.steps_authorised)
        rows = self.api.execute(
            sa.select(charged, phase.c.step_cost)
            .join(reservation, reservation.c.id == phase.c.reservation_id)
            .where(reservation.c.job_id.in_(self.by_main_order))
        ).all()
        place = held.filter.main
        assert sum(int(steps) * step_cost[place] for steps, step_cost in rows) <= held.cap[place]


@pytest.fixture
def connections(world: World) -> Iterator[tuple[sa.Connection, sa.Connection]]:
    with world.api.connect() as api, world.worker.connect() as worker:
        yield api, worker


@pytest.mark.sampled(1)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_shares_add_up_over_random_histories(
    world: World, connections: tuple[sa.Connection, sa.Connection], block: int
) -> None:
    """200 lives of a budget: what the API says is left is to be had, and the database decides as the service does."""
    seen: set[str] = set()
    for number in range(block, HISTORIES, BLOCKS):
        draws = random.Random(number)
        epsilon, delta, reference = BUDGETS[number % len(BUDGETS)]
        id = world.budget(epsilon, delta, reference)
        history = History(world, *connections, id, world.file(id), draws)
        acts: list[Callable[[], str]] = [history.ask, history.ask, history.end]
        seen |= {draws.choice(acts)() for _ in range(ACTS)}
    wanted = {f"by {what}: {how}" for what in ("share", "epsilon") for how in ("admitted", "refused")}
    wanted |= {"succeeded", "cancelled", "failed", "share_too_small"}
    assert wanted <= seen <= wanted | {"epsilon_too_small", "none is open"}


@pytest.mark.parametrize("method", TWO_PHASES, ids=lambda method: method[0])
def test_two_phases_have_one_joint_price(world: World, method: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    """The ledger's rows add up to what the program costs; the price lies between one phase alone and the naive sum."""
    id = world.budget()
    held = world.balance(id)
    draft = plan(held, method, epsilon=3.0)
    job_id, _ = world.submit([(world.file(id), id, phases_of(draft))])
    with world.api.connect() as c:
        of_job = sa.select(phase.c.reserved).join(reservation, reservation.c.id == phase.c.reservation_id)
        rows = [r.reserved for r in c.execute(of_job.where(reservation.c.job_id == job_id))]
    assert len(rows) == 2
    reserved = tuple(map(sum, zip(*rows, strict=True)))
    assert world.balance(id).reserved == reserved
    for ours, theirs in zip(draft.program.cost(held.filter.orders), reserved, strict=True):
        assert theirs <= ours <= theirs * (1 + 3e-9) + draft.program.steps  # plans are priced a hair above the ledger
    joint = held.epsilon_of(reserved)
    alone = [held.epsilon_of(row) for row in rows]
    assert joint == pytest.approx(draft.epsilon, abs=1e-6)
    assert max(alone) < joint < sum(alone)


def test_a_teacher_that_learns_here_is_paid_for_and_another_is_not(world: World) -> None:
    """At one epsilon the student has more noise beside a private teacher than beside a public one, and less than with
    half the epsilon for each; a teacher that was released costs what a public one does: nothing."""
    held, numbers = world.balance(world.budget()), {"steps": 20, "batch_size": 50}

    def noise(options: dict[str, Any], epsilon: float = 3.0, **more: int) -> float:
        draft = plan(held, ("distill", options, numbers | more), epsilon=epsilon)
        assert draft.epsilon == pytest.approx(epsilon, abs=1e-3)
        return draft.program.phases[-1].mechanism.noise_multiplier

    public, job = {"teacher": "public", "teacher_model": "m"}, {"teacher": "job", "teacher_job": "ftjob-m"}
    alone = plan(held, ("full", {}, numbers), epsilon=3.0).program.phases[0].mechanism.noise_multiplier
    assert noise(public) == noise(job) == alone
    assert alone < noise({}, teacher_steps=20) < noise(public, epsilon=1.5)
    assert noise({}, teacher_steps=20) < noise({}, teacher_steps=40)


def test_a_program_whose_second_phase_would_not_fit_is_refused_whole(world: World) -> None:
    id = world.budget()
    file, before = world.file(id), world.balance(id)
    first, second = Priced(0.01, 2.0, 10), Priced(0.01, 0.5, 100_000)
    for phases in ([second], [first, second], [second, first]):
        job_id = new_id("ftjob", "-")
        with pytest.raises(BudgetExceeded):
            world.submit([(file, id, phases)], job_id)
        assert world.balance(id) == before
        with world.api.connect() as c:
            assert c.execute(sa.select(job.c.id).where(job.c.id == job_id)).first() is None
            assert c.execute(sa.select(reservation.c.id).where(reservation.c.job_id == job_id)).first() is None
    world.submit([(file, id, [first])])
