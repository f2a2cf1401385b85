"""Random lives of a ledger, over the real Postgres and the services' own logins, against a model in exact integers."""

import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

import mpmath
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from domain.kit import tables
from domain.kit.database import make_engine
from dpcore.terms import accounting
from ledger import policy, work
from ledger.budgets import Reference
from ledger.errors import (
    AlreadySettled,
    BudgetExceeded,
    BudgetFrozen,
    LedgerError,
    StaleFence,
    StopRequested,
)
from ledger.reserve import JobOutcome, Priced, settle
from ledger.tables import budget, entry, phase, reservation
from ledger.tables import work as work_table
from ledger.verify import verify_budget
from tests.conftest import Database
from tests.ledger.worlds import World

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw().hex()
SATURATION = accounting.SATURATION
MECHANISMS = [(0.01, 0.7), (0.01, 1.6595), (0.001, 0.5), (0.1, 2.0), (1.0, 5.0), (1.0, 40.0), (0.5, 0.3)]
Act = Callable[[sa.Connection], object]
MUST_HAPPEN = {
    "reserve on 1: done",
    "reserve on 2: done",
    "reserve on 1: BudgetExceeded",
    "reserve on 1: BudgetFrozen",
    "claim",
    "steal",
    "authorise_under: done",
    "authorise_under: crash",
    "authorise_under: StaleFence",
    "authorise_under: BudgetFrozen",
    "settled: done",
    "settled: crash",
    "settled: StaleFence",
    "succeeded part way",
    "cancelled part way",
    "failed part way",
    "decide: done",
}
"""Otherwise the sample shows nothing."""


@dataclass
class Account:
    """What a budget should be."""

    id: str
    file: str
    delta: Fraction
    filter: accounting.Filter
    epsilon: Decimal
    claim: Decimal
    spent: list[int]
    reserved: list[int]
    frozen: bool = False
    entries: int = 1

    @property
    def cap(self) -> list[int]:
        """Rounded down, and one unit below."""
        return [
            min(math.floor((Fraction(self.epsilon) + o) * 10**12) - 1, SATURATION - 1)
            for o in _offsets(self.delta, self.filter)
        ]

    def fits(self, more: list[int]) -> bool:
        return any(s + r + m <= c for c, s, r, m in zip(self.cap, self.spent, self.reserved, more, strict=True))

    def spend(self, more: list[int]) -> None:
        self.spent = [min(s + m, SATURATION) for s, m in zip(self.spent, more, strict=True)]


@lru_cache
def _offsets(delta: Fraction, filter: accounting.Filter) -> list[Fraction]:
    """(log(delta w) + log a - (a-1) log(1-1/a)) / (a-1) to 60 digits: cap less epsilon."""
    with mpmath.workdps(60):
        return [
            Fraction(mpmath.nstr(x / (a - 1), 50))
            for a, w in zip(filter.orders, filter.weights, strict=True)
            for n, d in [(delta * w).as_integer_ratio()]
            for x in [mpmath.log(mpmath.mpf(n) / d) + mpmath.log(a) - (a - 1) * mpmath.log1p(mpmath.mpf(-1) / a)]
        ]


@dataclass
class Job:
    """What a job should be: the same phases in each of its budgets."""

    accounts: list[Account]
    phases: list[Priced]
    costs: dict[str, list[tuple[int, ...]]]
    """One step of each phase, for each budget at its own orders."""
    authorised: list[int] = field(init=False)
    executed: list[int] = field(init=False)
    fence: int = 0
    leased: bool = False
    stop: bool = False
    open: bool = True

    def __post_init__(self) -> None:
        self.authorised, self.executed = [0] * len(self.phases), [0] * len(self.phases)

    def price(self, account: Account, steps: list[int]) -> list[int]:
        """Per order; what is reserved never saturates as a sum."""
        costs = self.costs[account.id]
        return [sum(min(c[i] * n, SATURATION) for c, n in zip(costs, steps, strict=True)) for i in range(len(costs[0]))]

    def held(self, account: Account) -> list[int]:
        return self.price(account, [p.steps for p in self.phases])

    def owed(self, account: Account, outcome: JobOutcome) -> list[int]:
        everything = outcome == "failed" and any(self.authorised)
        return [
            min(x, SATURATION) for x in (self.held(account) if everything else self.price(account, self.authorised))
        ]

    def grant(self, ordinal: int, steps: int) -> int:
        if ordinal >= len(self.phases):
            return 0
        left = self.phases[ordinal].steps - self.authorised[ordinal]
        return left if self.phases[ordinal].indivisible else min(steps, left)


def _phase(mechanism: tuple[float, float], steps: int, indivisible: bool) -> Priced:
    return Priced(*mechanism, steps, indivisible)


phases = st.lists(
    st.builds(
        _phase, st.sampled_from(MECHANISMS), st.sampled_from([1, 7, 40, 300]), st.sampled_from([False, False, True])
    ),
    min_size=1,
    max_size=2,
)
shares = st.sampled_from([Fraction(1, 10), Fraction(1, 3), Fraction(1, 3), Fraction(1), None])
seldom = st.sampled_from([False, False, False, False, True])
anyone = st.integers(0, 10**6)
outcomes = st.sampled_from(["succeeded", "cancelled", "failed"])
fates = st.sampled_from(["ran", "ran", "ran", "crash", "answer lost"])


class LedgerLife(RuleBasedStateMachine):
    """One analyst too many, workers that die, stewards who change their mind."""

    world: World
    happened: Counter[str]
    budgets: Bundle[Account] = Bundle("budgets")
    in_one = st.lists(budgets, min_size=1, max_size=1)
    in_some = st.lists(budgets, min_size=1, max_size=2)

    def __init__(self) -> None:
        super().__init__()
        self.accounts: list[Account] = []
        self.model: dict[str, Job] = {}
        self.leases: list[work.Lease] = []
        self.touched: list[Account] = []
        self.seen_spent: dict[str, list[int]] = {}
        self.verified: dict[str, int] = {}

    # -- helpers

    def act(self, engine: sa.Engine, expected: type[LedgerError] | None, act: Act, *, crash: bool = False) -> None:
        """Do it in a transaction; `crash`: the connection is gone before the commit."""
        what = "crash" if crash else "done" if expected is None else expected.__name__
        self.happened[f"{sys._getframe(1).f_code.co_name}: {what}"] += 1
        if expected is not None:
            with pytest.raises(expected) as raised, engine.begin() as c:
                act(c)
            assert raised.type is expected
        elif crash:
            with engine.connect() as c:
                c.begin()
                act(c)
                c.invalidate()
        else:
            with engine.begin() as c:
                act(c)

    # -- budgets and files

    @initialize(target=budgets, sizes=st.permutations([("0.9", "1e-5"), ("3", "1e-7"), ("8", "1e-5")]))
    def open_budgets(self, sizes: list[tuple[str, str]]) -> object:
        return multiple(*(self.open_budget(*size) for size in sizes[:2]))

    def open_budget(self, epsilon: str, delta: str) -> Account:
        made = self.world.budget(epsilon, delta, Reference(0.01, 50, 2.0))
        filter = self.world.balance(made).filter
        nothing = list(filter.nothing)
        limit = Decimal(epsilon)
        account = Account(made, self.world.file(made), Fraction(delta), filter, limit, limit, nothing, nothing)
        self.accounts.append(account)
        self.touched.append(account)
        return account

    @precondition(lambda self: len(self.model) > 2)
    @rule(account=budgets, what=st.sampled_from(["upload again", "restart"]))
    def keep_house(self, account: Account, what: str) -> None:
        self.touched.append(account)
        if what == "restart":
            for engine in (self.world.api, self.world.worker, self.world.admin):
                engine.dispose()
        else:
            with self.world.api.begin() as c:
                gone = tables.file.update().where(tables.file.c.id == account.file)
                c.execute(gone.values(deleted_at=sa.func.now()))
            account.file = self.world.file(account.id)

    # -- jobs

    def reserve(
        self, accounts: list[Account], phases: list[Priced], share: Fraction | None, backwards: bool = False
    ) -> None:
        """The last phase with this share of the steps that fit in all its budgets; None: one more than fit."""
        charged = sorted({a.id: a for a in accounts}.values(), key=lambda a: a.id)
        costs = {a.id: [self.price(a, p.noise_multiplier, p.sample_rate) for p in phases] for a in charged}
        job = Job(charged, phases, costs)
        most = self.most(job)
        job.phases[-1] = replace(phases[-1], steps=min(max(1, most + 1 if share is None else int(most * share)), 10**7))
        expected: type[LedgerError] | None = None
        for account in charged:  # the database looks at them in the order of their ids
            if account.frozen or not account.fits(job.held(account)):
                expected = BudgetFrozen if account.frozen else BudgetExceeded
                break
        charges = [(a.file, a.id, job.phases) for a in (charged[::-1] if backwards else charged)]
        self.touched += charged
        self.happened[f"reserve on {len(charged)}: {expected.__name__ if expected else 'done'}"] += 1
        if expected is not None:
            with pytest.raises(expected) as raised:
                self.world.submit(charges)
            assert raised.type is expected
            return
        job_id, _ = self.world.submit(charges)
        for account in charged:
            account.reserved = [r + h for r, h in zip(account.reserved, job.held(account), strict=True)]
            account.entries += 1
        self.model[job_id] = job

    first_jobs = initialize(accounts=in_one, phases=st.just([Priced(0.01, 2.0, 1)]), share=st.just(Fraction(1, 5)))(
        reserve
    )
    small_jobs = rule(accounts=in_some, phases=phases, share=st.just(Fraction(1, 9)))(reserve)
    jobs_of_any_size = rule(accounts=in_some, phases=phases, share=shares, backwards=st.booleans())(reserve)

    def most(self, job: Job) -> int:
        """Steps of the last phase that fit beside everything else in all the job's budgets."""
        before = [*(p.steps for p in job.phases[:-1]), 0]
        return min(
            max(
                (c - s - r - f) // k
                for c, s, r, f, k in zip(
                    a.cap, a.spent, a.reserved, job.price(a, before), job.costs[a.id][-1], strict=True
                )
            )
            for a in job.accounts
        )

    def price(self, account: Account, sigma: float, q: float) -> tuple[int, ...]:
        return self.world.price(account.id, sigma, q)

    # -- work

    @precondition(lambda self: self.model)
    @rule(which=anyone)
    def claim(self, which: int) -> None:
        self.claim_job(self.some_job(which))

    def claim_job(self, job_id: str) -> None:
        job = self.model[job_id]
        with self.world.worker.begin() as c:
            lease = work.claim(c, job_id, "w", 500)
        if not job.open or job.leased:
            assert lease is None
            return
        job.fence += 1
        job.leased = True
        self.happened["claim" if job.fence == 1 else "steal"] += 1
        assert lease == work.Lease(job_id, job.fence)
        self.leases.append(lease)

    def some_job(self, which: int) -> str:
        """Now and then one that has ended."""
        still = [id for id, job in self.model.items() if job.open] if which % 5 else []
        among = still or list(self.model)
        return among[which % len(among)]

    def some_lease(self, which: int) -> work.Lease:
        """Now and then one that was lost, or whose job has ended."""
        held = [lease for lease in self.leases if self.holds(lease)] if which % 3 else []
        among = held or self.leases
        return among[which % len(among)]

    def holds(self, lease: work.Lease) -> bool:
        job = self.model[lease.job_id]
        return job.leased and job.fence == lease.fence

    @precondition(lambda self: self.leases)
    @rule(which=anyone, what=st.sampled_from(["renew", "drop", "runs out", "runs out"]))
    def lease_goes_on_or_ends(self, which: int, what: str) -> None:
        lease = self.some_lease(which)
        job = self.model[lease.job_id]

        def renew(c: sa.Connection) -> None:
            assert work.renew(c, lease, 500) == job.stop

        if what == "renew":
            self.act(self.world.worker, None if self.holds(lease) else StaleFence, renew)
        elif what == "drop":
            self.act(self.world.worker, None, lambda c: work.drop(c, lease))
            job.leased = job.leased and not self.holds(lease)
        else:
            self.lease_ends(lease.job_id)

    def lease_ends(self, job_id: str) -> None:
        past = sa.func.clock_timestamp() - sa.literal_column("interval '1 s'")
        with self.world.admin.begin() as c:
            c.execute(sa.update(work_table).where(work_table.c.job_id == job_id).values(lease_until=past))
        self.model[job_id].leased = False

    @precondition(lambda self: self.leases)
    @rule(which=anyone, ordinal=st.sampled_from([0, 0, 1]), steps=st.sampled_from([1, 20, 20, 10**7]), fate=fates)
    def authorise(self, which: int, ordinal: int, steps: int, fate: str) -> None:
        self.authorise_under(self.some_lease(which), ordinal, steps, fate)

    def authorise_under(self, lease: work.Lease, ordinal: int, steps: int, fate: str) -> None:
        job = self.model[lease.job_id]
        granted = job.grant(ordinal, steps)
        expected: type[LedgerError] | None = None
        if granted:
            if not self.holds(lease):
                expected = StaleFence
            elif job.stop:
                expected = StopRequested
            elif not job.open and not job.accounts[0].frozen:  # budgets are asked in the order of their ids
                expected = AlreadySettled
            elif any(a.frozen for a in job.accounts):
                expected = BudgetFrozen

        def act(c: sa.Connection) -> None:
            assert work.authorise(c, lease, ordinal, steps) == granted

        self.act(self.world.worker, expected, act, crash=fate == "crash")
        self.touched += job.accounts
        if expected is None and granted and fate != "crash":
            job.authorised[ordinal] += granted
            job.executed[ordinal] += granted if fate == "ran" else 0

    @precondition(lambda self: any(job.open for job in self.model.values()))
    @rule(
        which=anyone,
        steps=st.sampled_from([1, 20, 10**7]),
        outcome=outcomes,
        fate=fates,
        takeover=st.booleans(),
        frozen=seldom,
    )
    def attempt(self, which: int, steps: int, outcome: JobOutcome, fate: str, takeover: bool, frozen: bool) -> None:
        """Somebody takes a job, works a while and ends it; with `takeover` after the death of another, with `frozen`
        while the steward looks into one of its budgets."""
        job_id = self.some_job(5 * which + 1)
        account = self.model[job_id].accounts[-1]
        for _ in range(1 + takeover):
            self.lease_ends(job_id)
            self.claim_job(job_id)
            if frozen:
                self.decide(account, "freeze", "1", 0)
                self.authorise_under(self.leases[-1], 0, steps, "ran")
                self.decide(account, "thaw", "1", 0)
            self.authorise_under(self.leases[-1], 0, steps, fate)
        self.settled(self.world.worker, job_id, outcome, self.leases[-1].fence, False)

    @precondition(lambda self: self.leases)
    @rule(which=anyone, outcome=outcomes, crash=seldom)
    def settle_under_the_fence(self, which: int, outcome: JobOutcome, crash: bool) -> None:
        lease = self.some_lease(which)
        self.settled(self.world.worker, lease.job_id, outcome, lease.fence, crash)

    @precondition(lambda self: len(self.model) > 2)
    @rule(which=anyone, outcome=st.sampled_from(["stop", "cancelled", "failed"]), by_api=st.booleans())
    def end_without_a_lease(self, which: int, outcome: str, by_api: bool) -> None:
        job_id = self.some_job(which)
        if outcome == "stop":
            self.act(self.world.api, None, lambda c: work.request_stop(c, job_id))
            self.model[job_id].stop = True
        else:
            self.settled(self.world.api if by_api else self.world.worker, job_id, outcome, None, False)

    def settled(self, engine: sa.Engine, job_id: str, outcome: JobOutcome, fence: int | None, crash: bool) -> None:
        job = self.model[job_id]
        expected: type[LedgerError] | None = None
        if job.open and (not self.holds(work.Lease(job_id, fence)) if fence is not None else job.leased):
            expected = StaleFence

        def act(c: sa.Connection) -> None:
            receipts = settle(c, job_id, outcome, fence)
            assert [r.budget_id for r in receipts] == ([a.id for a in job.accounts] if job.open else [])

        self.act(engine, expected, act, crash=crash)
        self.touched += job.accounts
        if expected is None and job.open and not crash:
            job.open = False
            part = job.authorised != [p.steps for p in job.phases] and any(job.authorised)
            self.happened[f"{outcome} {'part way' if part else 'as a whole or unbegun'}"] += 1
            for account in job.accounts:
                account.spend(job.owed(account, outcome))
                account.reserved = [r - h for r, h in zip(account.reserved, job.held(account), strict=True)]
                account.entries += 1

    # -- decisions

    @precondition(lambda self: len(self.model) > 2)
    @rule(
        account=budgets,
        what=st.sampled_from(["freeze", "lower", "lower", "raise", "thaw", "thaw", "correct", "reprice"]),
        share=st.sampled_from(["0.3", "0.9", "0.99", "0.99"]),
        more=st.sampled_from([0, 10**9, 10**9, 10**11, SATURATION]),
    )
    def decision(self, account: Account, what: str, share: str, more: int) -> None:
        self.decide(account, what, share, more)

    def decide(self, account: Account, what: str, share: str, more: int) -> None:
        change = [*(more // 1000 for _ in account.spent[1:]), more]
        acts: dict[str, Act] = {
            "freeze": lambda c: policy.freeze(c, account.id, "a complaint"),
            "lower": lambda c: policy.lower_limit(c, account.id, account.epsilon, "less"),
            "raise": lambda c: policy.raise_limit(c, KEY, account.id, account.epsilon, "more"),
            "thaw": lambda c: policy.thaw(c, KEY, account.id, "looked into"),
            "correct": lambda c: policy.correct(c, KEY, account.id, change, "an export"),
            "reprice": lambda c: policy.reprice(c, KEY, account.id, "the same prices, so nothing changes"),
        }
        if what == "lower":
            account.epsilon = max(account.epsilon * Decimal(share), Decimal("1e-5"))
        elif what == "raise":
            account.epsilon = min(account.epsilon / Decimal(share).quantize(Decimal("0.1")), Decimal(20))
            account.epsilon = max(account.epsilon.quantize(Decimal("1e-20")), Decimal("0.01"))
            account.claim = max(account.claim, account.epsilon)
        refused = BudgetExceeded if what == "thaw" and not account.fits(list(account.filter.nothing)) else None
        self.act(self.world.api if what in ("freeze", "lower") else self.world.admin, refused, acts[what])
        self.touched.append(account)
        if refused is None:
            account.entries += 1
            if what == "correct":
                account.spend(change)
            over = not account.fits(list(account.filter.nothing))
            account.frozen = what == "freeze" or (what != "thaw" and account.frozen) or over

    # -- what must always hold

    @invariant()
    def the_database_is_as_the_model(self) -> None:
        touched, self.touched = {a.id: a for a in self.touched}, []
        if touched:
            with self.world.api.connect() as c:
                for account in touched.values():
                    self.check(c, account)

    def check(self, c: sa.Connection, account: Account) -> None:
        row = c.execute(sa.select(budget).where(budget.c.id == account.id)).one()
        reserved = [int(x) for x in row.reserved]
        assert list(row.cap) == account.cap
        assert list(row.spent) == account.spent
        assert reserved == account.reserved
        assert (row.epsilon, row.epsilon_claim) == (account.epsilon, account.claim)
        assert (row.frozen_reason is not None) == account.frozen
        assert min(reserved) >= 0
        assert account.frozen or accounting.fits(row.cap, row.spent, reserved)
        before = self.seen_spent.get(account.id, account.filter.nothing)
        assert all(a <= b for a, b in zip(before, row.spent, strict=True))
        self.seen_spent[account.id] = list(row.spent)

        if self.verified.get(account.id) != account.entries:
            self.verified[account.id] = account.entries
            self.check_history(c, account)

        steps = c.execute(
            sa.select(reservation.c.job_id, phase.c.ordinal, phase.c.steps_authorised, reservation.c.state)
            .join(phase, phase.c.reservation_id == reservation.c.id)
            .where(reservation.c.budget_id == account.id)
        )
        for job_id, ordinal, authorised, state in steps:
            job = self.model[job_id]
            assert authorised == job.authorised[ordinal] >= job.executed[ordinal]
            assert (state == "reserved") == job.open

    def check_history(self, c: sa.Connection, account: Account) -> None:
        entries = c.execute(sa.select(entry).where(entry.c.budget_id == account.id).order_by(entry.c.seq)).all()
        assert [e.seq for e in entries] == list(range(1, account.entries + 1))
        assert all(a.hash == b.prev_hash for a, b in itertools.pairwise(entries))
        replayed = replace(account, spent=list(account.filter.nothing), reserved=list(account.filter.nothing))
        for e in entries:
            replayed.spend(e.spent_change)
            replayed.reserved = [a + int(b) for a, b in zip(replayed.reserved, e.reserved_change, strict=True)]
        assert (replayed.spent, replayed.reserved) == (account.spent, account.reserved)
        assert verify_budget(c, account.id, PUBLIC) == []

    def teardown(self) -> None:
        for account in self.accounts:
            self.audit(account)

    def audit(self, account: Account) -> None:
        """What was really run, composed by dp-accounting: no more than was charged, and within the guarantee."""
        ran: Counter[tuple[float, float]] = Counter()
        charged = list(account.spent)
        for job in self.model.values():
            if account in job.accounts:
                for p, steps in zip(job.phases, job.executed, strict=True):
                    ran[p.sample_rate, p.noise_multiplier] += steps
                if job.open:
                    charged = [a + b for a, b in zip(charged, job.price(account, job.authorised), strict=True)]
        events = [(PoissonSampledDpEvent(q, GaussianDpEvent(s)), n) for (q, s), n in ran.items() if n]
        if not events:
            return
        relation = NeighboringRelation.ADD_OR_REMOVE_ONE
        together = RdpAccountant(list(account.filter.orders), relation)
        for event, count in events:
            together.compose(event, count)
        for rho, units in zip(together.rdp, charged, strict=True):
            assert units >= SATURATION or rho * 1e12 <= units * (1 + 1e-8)
        epsilons = []
        for a, w in zip(account.filter.orders, account.filter.weights, strict=True):
            single = RdpAccountant([a], relation)
            for event, count in events:
                single.compose(event, count)
            epsilons.append(single.get_epsilon(float(account.delta * w)))
        assert min(epsilons) <= float(account.claim) + 1e-9


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    """With pooled engines, as in the services."""
    world = World(database)
    world.admin = make_engine(database.admin_url, 1)
    world.api = make_engine(database.api_url, 1)
    world.worker = make_engine(database.worker_url, 1)
    yield world
    for engine in (world.admin, world.api, world.worker):
        engine.dispose()


def live(world: World, examples: int, *, fixed: bool) -> Counter[str]:
    class Life(LedgerLife):
        pass

    Life.world, Life.happened = world, Counter()
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=fixed,
            # Shrinking takes minutes on a database; the sample says what broke without it.
            phases=[Stage.generate] if fixed else [Stage.generate, Stage.shrink],
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Life.happened


def test_a_ledger_lives_as_its_model_does(world: World) -> None:
    happened = live(world, 20, fixed=True)
    assert set(happened) >= MUST_HAPPEN, happened


@pytest.mark.verify
@pytest.mark.timeout(3600)
def test_many_ledgers_live_as_their_models_do(world: World) -> None:
    happened = live(world, 400, fixed=False)
    print(*(f"{n:7} {what}" for what, n in sorted(happened.items())), sep="\n")
    assert set(happened) >= MUST_HAPPEN, happened
