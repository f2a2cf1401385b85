"""How fast does the ledger reserve and settle, does its history slow it down, and how much fits into a budget?

reserve_settle/{0,1e4,1e6}/{p50_ms,p99_ms}   one client, reserve + settle (two commits, fsync on), budgets with that
                                             many entries behind them; the rounds of the budgets are interleaved
hot_budget/per_second                        several processes on one budget, reserve + settle pairs
hundred_budgets/per_second                   the same processes, each pair on another of 100 budgets
noise_over_pld/{eps0.5,eps1,eps3,eps8}       a job that fills its budget: the ledger's noise over what a privacy loss
                                             distribution asks for; SST-2's default job at delta 1e-5
noise_over_pld/{e2e-eps3,q0.001-eps0.5}      the same of E2E's default job, and of 3,000 steps at rate 0.001
jobs_that_fit/{sum,filter,pld_plan}          jobs of (sigma 1.6595, q .01, 1000 steps) in (8, 1e-5)
"""

import contextlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psycopg
import sqlalchemy as sa

if __name__ == "__main__":  # run as a file: this folder's ledger.py must not hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.common import Figure, median, parser, percentile, report, spread, versions
from cli.embedded import postgres
from domain.kit import tables
from domain.kit.database import make_engine
from domain.kit.ids import new_id
from ledger.reserve import Charge, Priced, reserve, settle
from migrations.roles import Login, Logins, statements

NAME = "ledger"
JOB = Priced(sample_rate=0.01, noise_multiplier=1.6595, steps=1000)
SMALL = Priced(sample_rate=0.001, noise_multiplier=50.0, steps=10)
EPSILON, DELTA = 8.0, 1e-5
FLAT = 1.5


@dataclass(frozen=True)
class Site:
    """A migrated server, a tenant and a key."""

    root_url: str
    api_url: str
    tenant: str = "tenant_bench"
    key: str = "key_bench"


@contextmanager
def site() -> Iterator[Site]:
    """An embedded Postgres of its own, with its default durability: every commit waits for the disk."""
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # root runs Postgres as another user
        server = postgres.start(folder / "postgres", password="admin", log=folder / "log")
        try:
            from migrations import upgrade

            root_url = server.url(postgres.SUPERUSER, "admin", "postgres")
            logins = Logins(Login("tacit_admin", "admin"), Login("bench_api", "api"), Login("bench_worker", "worker"))
            with psycopg.connect(root_url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute(statements(logins).encode())
            upgrade(server.url("tacit_admin", "admin", "postgres"))
            made = Site(root_url, server.url("bench_api", "api", "postgres"))
            engine = make_engine(made.api_url, 1)
            with engine.begin() as c:
                c.execute(tables.tenant.insert().values(id=made.tenant, name="bench"))
                key = {"id": made.key, "tenant_id": made.tenant, "name": "k", "prefix": "p", "mac": b"m"}
                c.execute(tables.api_key.insert().values(**key, scopes=["steward"]))
            engine.dispose()
            yield made
        finally:
            server.stop()


def open_budget(engine: sa.Engine, site: Site) -> tuple[str, str]:
    """A budget and a file in it."""
    from ledger.budgets import Reference
    from ledger.budgets import open_budget as insert

    budget, file = new_id("budget"), new_id("file", "-")
    with engine.begin() as c:
        insert(
            c,
            id=budget,
            tenant_id=site.tenant,
            name="b",
            epsilon=Decimal(EPSILON),
            delta=Decimal(str(DELTA)),
            unit="record",
            max_records_per_user=None,
            reference=Reference(JOB.sample_rate, JOB.steps, JOB.noise_multiplier),
        )
        row = {"id": file, "tenant_id": site.tenant, "purpose": "fine-tune", "filename": "f", "budget_id": budget}
        c.execute(tables.file.insert().values(**row))
    return budget, file


def submit(c: sa.Connection, site: Site, budget: str, file: str, phase: Priced) -> str:
    """What the API inserts for a job."""
    job = new_id("ftjob", "-")
    row = {"id": job, "tenant_id": site.tenant, "created_by": site.key, "model": "m", "seed": 0}
    c.execute(tables.job.insert().values(**row, method={}, plan={}, privacy={}))
    c.execute(tables.job_file.insert().values(job_id=job, file_id=file, budget_id=budget))
    reserve(c, job, [Charge(new_id("resv"), file, budget, [phase])])
    return job


def pair(engine: sa.Engine, site: Site, budget: str, file: str) -> None:
    """Reserve and settle: two transactions."""
    with engine.begin() as c:
        job = submit(c, site, budget, file, SMALL)
    with engine.begin() as c:
        settle(c, job, "cancelled")


_HISTORY = """
SET LOCAL session_replication_role = replica;
INSERT INTO job (id, tenant_id, created_by, model, method, plan, privacy, seed, status)
  SELECT '{budget}-j' || i, '{tenant}', '{key}', 'm', '{{}}', '{{}}', '{{}}', 0, 'cancelled'
  FROM generate_series(1, {pairs}) AS i;
INSERT INTO job_file SELECT '{budget}-j' || i, '{file}', '{budget}' FROM generate_series(1, {pairs}) AS i;
INSERT INTO ledger.work (job_id) SELECT '{budget}-j' || i FROM generate_series(1, {pairs}) AS i;
INSERT INTO ledger.reservation (id, job_id, file_id, budget_id, state, starts_by)
  SELECT '{budget}-r' || i, '{budget}-j' || i, '{file}', '{budget}', 'settled', now()
  FROM generate_series(1, {pairs}) AS i;
INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max, step_cost, reserved)
  SELECT '{budget}-r' || i, 0, {q}, {sigma}, {steps}, c.cost, ledger.times(c.cost, {steps})
  FROM generate_series(1, {pairs}) AS i, (SELECT ledger.poisson_gaussian_curve({sigma}, {q}, orders) AS cost
                                          FROM ledger.budget WHERE id = '{budget}' OFFSET 0) AS c;
INSERT INTO ledger.entry (budget_id, seq, kind, reservation_id, outcome, spent_change, reserved_change, actor, at,
                          prev_hash, hash)
  SELECT '{budget}', i + 1, CASE WHEN i % 2 = 1 THEN 'reserve' ELSE 'settle' END, '{budget}-r' || (i + 1) / 2,
         CASE WHEN i % 2 = 0 THEN 'cancelled' END, array_fill(0::bigint, ARRAY[cardinality(c.held)]),
         CASE WHEN i % 2 = 1 THEN c.held ELSE c.given END,
         'bench_api', now(), sha256(int8send(i)), sha256(int8send(i + 1))
  FROM generate_series(1, 2 * {pairs}) AS i,
       (SELECT array_agg(x::numeric ORDER BY o) AS held, array_agg(-x::numeric ORDER BY o) AS given
        FROM ledger.budget b, unnest(ledger.times(ledger.poisson_gaussian_curve({sigma}, {q}, b.orders), {steps}))
             WITH ORDINALITY AS u (x, o) WHERE b.id = '{budget}' OFFSET 0) AS c;
UPDATE ledger.budget SET head_seq = 2 * {pairs} + 1, head_hash = sha256(int8send(2 * {pairs} + 1))
  WHERE id = '{budget}';
"""


def write_history(site: Site, budget: str, file: str, entries: int) -> None:
    """Give a budget a past of cancelled jobs, by the superuser past the triggers; hashes linked but not canonical."""
    engine = sa.create_engine(site.root_url)
    text = _HISTORY.format(
        budget=budget,
        file=file,
        tenant=site.tenant,
        key=site.key,
        pairs=entries // 2,
        q=SMALL.sample_rate,
        sigma=SMALL.noise_multiplier,
        steps=SMALL.steps,
    )
    with engine.begin() as c:
        for statement in text.split(";\n"):
            if statement.strip():
                c.exec_driver_sql(statement.replace("%", "%%"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.exec_driver_sql("VACUUM ANALYZE")
        c.exec_driver_sql("CHECKPOINT")
    engine.dispose()


def reserve_settle(site: Site, histories: Sequence[int], rounds: int, each: int) -> list[Figure]:
    """Times of a pair per length of history; each round visits every budget, in an order that turns."""
    engine = make_engine(site.api_url, 1)
    budgets = {}
    for entries in histories:
        budgets[entries] = open_budget(engine, site)
        if entries:
            write_history(site, *budgets[entries], entries)
    times: dict[int, list[list[float]]] = {entries: [] for entries in histories}
    for number in range(rounds + 1):
        turn = number % len(histories)
        for entries in [*histories[turn:], *histories[:turn]]:
            taken = []
            for _ in range(each):
                began = time.perf_counter()
                pair(engine, site, *budgets[entries])
                taken.append((time.perf_counter() - began) * 1e3)
            if number:  # the first round warms up
                times[entries].append(taken)
    engine.dispose()
    figures = []
    for entries, taken_by_round in times.items():
        everything = [t for taken in taken_by_round for t in taken]
        name = f"reserve_settle/{entries if entries == 0 else f'1e{len(str(entries)) - 1}'}"
        for percent in (50, 99):
            by_round = [percentile(taken, percent) for taken in taken_by_round]
            value = percentile(everything, percent)
            detail: dict[str, object] = {"pairs": len(everything), "rounds": rounds}
            figures.append(Figure(NAME, f"{name}/p{percent}_ms", value, "ms", spread(by_round), detail))
    return figures


def _work(
    site: Site, budgets: Sequence[tuple[str, str]], seconds: float, start: Barrier, done: "Queue[int]", number: int
) -> None:
    engine = make_engine(site.api_url, 1)
    pair(engine, site, *budgets[number % len(budgets)])
    start.wait(300)
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        pair(engine, site, *budgets[(number * 37 + count) % len(budgets)])
        count += 1
    done.put(count)


def throughput(site: Site, clients: int, rounds: int, seconds: float) -> list[Figure]:
    """Pairs per second of several processes on one budget and on a hundred, in turn."""
    engine = make_engine(site.api_url, 1)
    hundred = [open_budget(engine, site) for _ in range(100)]
    engine.dispose()
    spawn = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {"hot_budget": [], "hundred_budgets": []}
    for _ in range(rounds):
        for name, budgets in (("hot_budget", hundred[:1]), ("hundred_budgets", hundred)):
            start, done = spawn.Barrier(clients), spawn.Queue()
            workers = [
                spawn.Process(target=_work, args=(site, budgets, seconds, start, done, i)) for i in range(clients)
            ]
            for worker in workers:
                worker.start()
            rates[name].append(sum(done.get(timeout=300) for _ in workers) / seconds)
            for worker in workers:
                worker.join()
    detail: dict[str, object] = {"clients": clients, "seconds": seconds, "rounds": rounds}
    return [
        Figure(NAME, f"{name}/per_second", median(found), "1/s", spread(found), detail) for name, found in rates.items()
    ]


def jobs_that_fit() -> list[Figure]:
    """By summing each job's own epsilon, by the ledger's filter, and by PLD with a plan fixed in advance."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    from dpcore.terms import accounting

    event = SelfComposedDpEvent(
        PoissonSampledDpEvent(JOB.sample_rate, GaussianDpEvent(JOB.noise_multiplier)), JOB.steps
    )
    held = accounting.reference_filter(EPSILON, DELTA, JOB.sample_rate, JOB.steps, JOB.noise_multiplier)
    cost = accounting.cost(accounting.curve(JOB.noise_multiplier, JOB.sample_rate, held.orders), JOB.steps)
    filtered = max(c // k for c, k in zip(accounting.caps(EPSILON, DELTA, held), cost, strict=True))
    # Deltas add up too: with a share of delta each, more jobs need a smaller share, so count until it breaks.
    summed = 0
    while (summed + 1) * RdpAccountant().compose(event).get_epsilon(DELTA / (summed + 1)) <= EPSILON:
        summed += 1
    low, high = filtered, 4 * filtered
    while high - low > 1:
        middle = (low + high) // 2
        fits = PLDAccountant().compose(event, middle).get_epsilon(DELTA) <= EPSILON
        low, high = (middle, high) if fits else (low, middle)
    detail: dict[str, object] = {"job": f"sigma {JOB.noise_multiplier}, q {JOB.sample_rate}, {JOB.steps} steps"}
    detail |= {"budget": f"({EPSILON:g}, {DELTA:g})", **versions("dp-accounting")}
    counts = {"sum": summed, "filter": filtered, "pld_plan": low}
    return [Figure(NAME, f"jobs_that_fit/{name}", count, "jobs", None, detail) for name, count in counts.items()]


FILLING = {
    # epsilon, delta, sample rate, steps of one job that fills its budget
    "eps0.5": (0.5, 1e-5, 1024 / 67349, 200),
    "eps1": (1.0, 1e-5, 1024 / 67349, 200),
    "eps3": (3.0, 1e-5, 1024 / 67349, 200),
    "eps8": (8.0, 1e-5, 1024 / 67349, 200),
    "e2e-eps3": (3.0, 1e-6, 512 / 42061, 60),
    "q0.001-eps0.5": (0.5, 1e-5, 0.001, 3000),
}


def noise_over_pld(names: Sequence[str]) -> list[Figure]:
    """The noise multiplier that the ledger's filter asks for, over the least at which a privacy loss distribution has
    the same epsilon; beside it by the best of the orders of the first revisions, and by all orders without weights."""
    from dpcore.terms import accounting

    def by_best(*filters: accounting.Filter) -> float:
        found = []
        for held in filters:
            with contextlib.suppress(accounting.DoesNotFit):
                found.append(accounting.calibrate(epsilon, delta, held, (accounting.Part(rate, steps),)))
        return min(found)

    figures = []
    for name in names:
        epsilon, delta, rate, steps = FILLING[name]
        filter = accounting.reference_filter(epsilon, delta, rate, steps)
        ours = accounting.calibrate(epsilon, delta, filter, (accounting.Part(rate, steps),))
        low, high = accounting.MIN_NOISE_MULTIPLIER, ours
        while high - low > 1e-4 * high:
            middle = (low + high) / 2
            fits = accounting.pld_epsilon((accounting.Part(rate, steps, middle),), delta) <= epsilon
            low, high = (low, middle) if fits else (middle, high)
        first = [accounting.with_main(a, accounting.FIRST_ORDERS) for a in accounting.FIRST_ORDERS]
        every = accounting.Filter(accounting.MAIN_ORDERS, (Fraction(1),) * len(accounting.MAIN_ORDERS))
        detail: dict[str, object] = {"epsilon": epsilon, "delta": delta, "sample_rate": rate, "steps": steps}
        detail |= {"sigma": ours, "first_orders": by_best(*first) / high, "unweighted": by_best(every) / high}
        figures.append(Figure(NAME, f"noise_over_pld/{name}", ours / high, "ratio", None, detail))
    return figures


def flatness(figures: Sequence[Figure]) -> list[str]:
    """Whether a long history costs time."""
    notes = []
    for percent in (50, 99):
        found = [f for f in figures if f.figure.startswith("reserve_settle/") and f.figure.endswith(f"p{percent}_ms")]
        ratio = max(f.value for f in found) / found[0].value
        verdict = "flat" if ratio <= FLAT else "NOT flat"
        notes.append(
            f"p{percent} over all histories is at most {ratio:.2f} times that of an empty one: {verdict} within {FLAT}"
        )
    return notes


def main() -> None:
    options = parser(__doc__).parse_args()
    quick = options.quick
    figures = jobs_that_fit() + noise_over_pld(["eps1", "eps8"] if quick else list(FILLING))
    with site() as place:
        histories = (0, 10**4) if quick else (0, 10**4, 10**6)
        figures += reserve_settle(place, histories, *((4, 20) if quick else (20, 50)))
        figures += throughput(place, 4, *((1, 2.0) if quick else (5, 5.0)))
    report(figures, options.json, flatness(figures))


if __name__ == "__main__":
    main()
