"""Many at once: processes at the edge of a budget, opposite lock orders, a worker from the dead, a server killed."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from cli.embedded import postgres
from domain.kit import tables
from domain.kit.database import make_engine
from dpcore.terms import accounting
from ledger import work
from ledger.budgets import Balance
from ledger.errors import BudgetExceeded
from ledger.reserve import Priced, settle
from ledger.tables import entry, phase, reservation
from ledger.verify import verify_budget
from migrations import upgrade
from tests.conftest import SUPERUSER_PASSWORD, database_on, establish
from tests.ledger import contenders
from tests.ledger.worlds import World
from worker.ends import fail_privately

ROOT = Path(__file__).parents[2]
PROCESSES, EACH, ROOM = 16, 25, 100


def steps_of_which_room_fits(world: World, budget: str, job: Priced) -> Priced:
    """The job with so many steps that exactly ROOM of it fit, by the ledger's own integers."""
    curve = world.price(budget, job.noise_multiplier, job.sample_rate)
    cap = world.balance(budget).cap
    most = max(c // k for c, k in zip(cap, curve, strict=True))
    found = Priced(job.sample_rate, job.noise_multiplier, most // ROOM)
    assert max(c // (k * found.steps) for c, k in zip(cap, curve, strict=True)) == ROOM
    return found


def test_400_reservations_from_16_processes_against_room_for_100(world: World) -> None:
    budget = world.budget()
    file = world.file(budget)
    job = steps_of_which_room_fits(world, budget, Priced(0.01, 1.6595, 1))
    start, answers = contenders.APART.Barrier(PROCESSES), contenders.APART.Queue()
    arguments = (world.database.api_url, world.tenant, world.key, file, budget, job, EACH, start, answers)
    processes = [contenders.APART.Process(target=contenders.submit_often, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    seen: Counter[str] = Counter()
    for _ in processes:
        seen.update(answers.get(timeout=300))
    for process in processes:
        process.join(60)
    assert seen == {"admitted": ROOM, "23514": PROCESSES * EACH - ROOM}
    with world.api.connect() as c:
        chain = sa.select(entry.c.seq).where(entry.c.budget_id == budget).order_by(entry.c.seq)
        assert c.execute(chain).scalars().all() == list(range(1, ROOM + 2))
        booked = sa.select(sa.func.count()).select_from(reservation).where(reservation.c.budget_id == budget)
        assert c.execute(booked).scalar_one() == ROOM
        assert verify_budget(c, budget) == []


def test_jobs_over_several_budgets_neither_deadlock_nor_half_commit(world: World) -> None:
    """Threads that name the same three budgets in every order, reserve, work, fail and cancel; one budget is tight."""
    roomy = [world.budget(), world.budget()]
    budgets = [*roomy, world.budget("2")]
    files = {b: world.file(b) for b in budgets}
    api, worker = make_engine(world.database.api_url, 8), make_engine(world.database.worker_url, 8)
    orders = list(itertools.permutations(budgets))
    job = Priced(0.01, 1.6595, 600)

    def one(number: int) -> str:
        named = [(files[b], b) for b in orders[number % len(orders)]]
        try:
            with api.begin() as c:
                id = contenders.submit(c, world.tenant, world.key, named, job)
        except BudgetExceeded:
            return "refused"
        end = ("succeeded", "private failure", "cancelled", "open")[number % 4]
        if end == "open":
            return end
        with worker.begin() as c:
            lease = work.claim(c, id, "w", 60)
        assert lease is not None
        with worker.begin() as c:
            assert work.authorise(c, lease, 0, 10) == 10
        if end == "private failure":
            fail_privately(worker, lease)
        else:
            with worker.begin() as c:
                settle(c, id, end, lease.fence)  # type: ignore[arg-type]
        return end

    with ThreadPoolExecutor(8) as pool:
        ends = Counter(pool.map(one, range(64)))  # anything else, a deadlock for one, is raised here
    api.dispose()
    worker.dispose()
    assert ends["refused"] > 0
    assert set(ends) == {"refused", "succeeded", "private failure", "cancelled", "open"}
    with world.api.connect() as c:
        ours = sa.select(reservation.c.job_id).where(reservation.c.budget_id.in_(budgets))
        spread = c.execute(ours.add_columns(sa.func.count()).group_by(reservation.c.job_id)).all()
        assert {n for _, n in spread} == {len(budgets)}
        assert len(spread) == sum(ends.values()) - ends["refused"]
        assert [f for b in budgets for f in verify_budget(c, b)] == []
    held = [world.balance(b) for b in budgets]
    assert held[0].used == held[1].used != held[0].filter.nothing


@contextlib.contextmanager
def stopped_worker(world: World, job: str, moment: str) -> Iterator["subprocess.Popen[str]"]:
    """A worker in a process of its own that was stopped in its tracks, past its lease of a second."""
    words = [world.database.worker_url, job, world.tenant, "1.0", moment]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.contenders", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.2)
        yield process
    finally:
        process.kill()
        process.wait()


def woken(process: "subprocess.Popen[str]") -> dict[str, str]:
    """What it got for going on."""
    os.kill(process.pid, signal.SIGCONT)
    said, _ = process.communicate("go on\n", timeout=60)
    return json.loads(said)


def published(world: World, job: str) -> int:
    with world.api.connect() as c:
        rows = sa.select(sa.func.count()).select_from(tables.release).where(tables.release.c.job_id == job)
        return c.execute(rows).scalar_one()


def test_a_worker_stopped_past_its_lease_publishes_nothing(world: World) -> None:
    budget = world.budget()
    job, _ = world.submit([(world.file(budget), budget, [Priced(0.01, 1.0, 100)])])
    with stopped_worker(world, job, "outside") as process:
        with world.worker.begin() as c:
            heir = work.claim(c, job, "heir", 300)
            assert heir is not None
            assert work.authorise(c, heir, 0, 20) == 20
        got = woken(process)
    assert got == dict.fromkeys(got, "TC001") | {"renew": "StaleFence"}
    assert len(got) == 7
    assert published(world, job) == 0
    with world.worker.begin() as c:
        assert c.execute(sa.select(tables.checkpoint).where(tables.checkpoint.c.job_id == job)).all() == []
        settle(c, job, "succeeded", heir.fence)
    with world.api.connect() as c:
        row = c.execute(
            sa.select(phase.c.steps_authorised, phase.c.step_cost)
            .join(reservation, reservation.c.id == phase.c.reservation_id)
            .where(reservation.c.job_id == job)
        ).one()
    assert row.steps_authorised == 30  # both workers' steps
    assert world.balance(budget).spent == accounting.cost(tuple(row.step_cost), 30)


def test_a_worker_stopped_inside_its_publication_still_publishes_alone(world: World) -> None:
    """It holds the job's lock: nobody can claim past it, and what it commits is whole."""
    budget = world.budget()
    job, _ = world.submit([(world.file(budget), budget, [Priced(0.01, 1.0, 100)])])
    with stopped_worker(world, job, "inside") as process:
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"), world.worker.begin() as c:
            c.exec_driver_sql("SET LOCAL lock_timeout = '300ms'")
            work.claim(c, job, "heir", 300)
        assert published(world, job) == 0
        assert woken(process) == {"publish": "done"}
    assert published(world, job) == 2
    with world.worker.begin() as c:
        assert work.claim(c, job, "heir", 300) is None
    with world.api.connect() as c:
        assert verify_budget(c, budget) == []


class Durable:
    """A server of its own with fsync on, that can be killed in mid-transaction."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()
        self.database = database_on(self.server, "postgres")

    def start(self) -> None:
        self.server = postgres.start(
            self._folder / "durable",
            password=SUPERUSER_PASSWORD,
            log=self._folder / "durable.log",
            options=["max_connections=60"],
        )

    def kill(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, no good-bye; the next start replays the log."""
        self.server.process.stop(signal.SIGQUIT, 60)


@pytest.fixture
def durable(short_folder: Path, postgres_server: postgres.Postgres) -> Iterator[Durable]:
    server = Durable(short_folder)
    establish(server.database.superuser_url)
    upgrade(server.database.admin_url)
    yield server
    server.server.stop()


@pytest.mark.slow
def test_a_server_killed_in_mid_transaction_forgets_nothing_that_was_promised(durable: Durable) -> None:
    world = World(durable.database)
    budgets = [world.budget() for _ in range(2)]
    files = {b: world.file(b) for b in budgets}
    promised: dict[str, int] = {}  # steps that were authorised, by job; written only after the commit was answered
    settled: set[str] = set()
    job = Priced(0.01, 1.6595, 100)

    def live(seed: int, ending: threading.Event) -> None:
        chance = random.Random(seed)
        api, worker = make_engine(durable.database.api_url, 1), make_engine(durable.database.worker_url, 1)
        with contextlib.suppress(sa.exc.DBAPIError, BudgetExceeded):
            while not ending.is_set():
                with api.begin() as c:
                    id = contenders.submit(c, world.tenant, world.key, [(files[b], b) for b in budgets], job)
                promised[id] = 0
                with worker.begin() as c:
                    lease = work.claim(c, id, "w", 60)
                assert lease is not None
                for _ in range(chance.randrange(3)):
                    with worker.begin() as c:
                        granted = work.authorise(c, lease, 0, 10)
                    promised[id] += granted
                with worker.begin() as c:
                    settle(c, id, chance.choice(["succeeded", "cancelled"]), lease.fence)
                settled.add(id)
        api.dispose()
        worker.dispose()

    for round in range(3):
        before = len(promised)
        ending = threading.Event()
        threads = [threading.Thread(target=live, args=(10 * round + i, ending)) for i in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(promised) < before + 12 and time.monotonic() < deadline:
            time.sleep(0.05)
        durable.kill()
        ending.set()
        for thread in threads:
            thread.join(60)
        durable.start()
        assert len(promised) > before
        sound(world, budgets, promised, settled)


def sound(world: World, budgets: list[str], promised: dict[str, int], settled: set[str]) -> None:
    with world.api.connect() as c:
        assert [f for b in budgets for f in verify_budget(c, b)] == []
        rows = c.execute(
            sa.select(reservation.c.job_id, reservation.c.budget_id, reservation.c.state, phase.c.steps_authorised)
            .join(phase, phase.c.reservation_id == reservation.c.id)
            .where(reservation.c.budget_id.in_(budgets))
        ).all()
    held = {(r.job_id, r.budget_id): r for r in rows}
    for job, steps in promised.items():
        for b in budgets:
            assert held[job, b].steps_authorised >= steps
            assert held[job, b].state == "settled" or job not in settled
    balances: list[Balance] = [world.balance(b) for b in budgets]
    assert all(accounting.fits(b.cap, b.spent, b.reserved) for b in balances)
    assert balances[0].used == balances[1].used
