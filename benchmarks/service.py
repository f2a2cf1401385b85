"""How fast does the API answer while a thousand jobs wait and fifty clients ask, and does its memory stay flat?

The service runs as `tacit up` runs it (Postgres with every commit on the disk, Redis, one API process under uvicorn),
without a limit on requests and, but for the last figure, without a worker. Clients are half stewards' dashboards, half
analysts' scripts; they live in one other process, which shares the processor's cores with the service.

{get,list,events,create,cancel,estimate}/{p50_ms,p99_ms}   1,000 queued jobs, 50 clients that each ask once a second
saturated/.../{p50_ms,p99_ms}      the same clients, each asking again at once: mostly waiting for 49 others
requests_per_second                of those: the most that this machine answers, clients included; then they go on
                                   until all requests have been sent, for the memory alone (Ctrl-C ends that early)
{get,...}/statements               SQL statements for one request; `control` are begin, commit, rollback and the like
submit_1000/per_second             jobs created one after the other by one client, as the queue grows
api_memory/{1e3,1e4,1e5}           MiB (PSS) of the API's process after so many requests
api_memory_growth_mib              from the first of these to the last
new_job_after_cancels/seconds      until a worker begins a job, submitted right after 250 others that were cancelled at
                                   once, one after the other (with --quick 30)
"""

import multiprocessing
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if __name__ == "__main__":  # run as a file: no module of this folder may hide a package of its name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.clients import pollers
from benchmarks.clients.cancels import seconds_until_started
from benchmarks.clients.pollers import JOBS, Answers, Crowd, Load
from benchmarks.clients.served import MIB, PROJECT, Served, answered, make_key, serving, working
from benchmarks.common import Figure, parser, percentile, report, versions

NAME = "service"
ROWS = 1000
DECLARED = 10**6
BODY = {
    "model": "minilm-l6",
    "method": {"type": "lora", "lora": {"r": 4, "hyperparameters": {"steps": 20, "batch_size": 16}}},
    "privacy": {"epsilon": 1.0},
}
CONTROL = re.compile(r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|SHOW|DEALLOCATE|;|$)", re.IGNORECASE)
"""Statements that read and write nothing."""


def prepare(served: Served, jobs: int, bar: Progress) -> tuple[Crowd, Figure]:
    """A budget that holds every job there will be, keys, and so many queued jobs, made over HTTP."""
    rows = "text,label\n" + "".join(f"the note with number {i},{i % 2}\n" for i in range(ROWS))
    form = {"purpose": "fine-tune", "privacy_budget[epsilon]": "100", "declared_size": str(DECLARED), "labels": "0,1"}
    with served.client() as admin:
        file = answered(admin.post("/v1/files", data=form, files={"file": ("rows.csv", rows)}))
        stewards, analysts = ([make_key(admin, scope) for _ in range(5)] for scope in ("steward", "analyst"))
        answered(admin.post(f"/v1/budgets/{file['budget']}/grants", json={"project": PROJECT}))
    body = BODY | {"training_file": file["id"]}
    made = []
    task, began = bar.add_task("creating jobs", total=jobs), time.perf_counter()
    with served.client(analysts[0]) as analyst:
        for _ in range(jobs):
            made.append(answered(analyst.post(JOBS, json=body))["id"])
            bar.advance(task)
    rate = Figure(NAME, f"submit_{jobs}/per_second", jobs / (time.perf_counter() - began), "1/s")
    return Crowd(served.url, 50, stewards, analysts, made, body), rate


def statements(served: Served, crowd: Crowd, times: int = 9) -> list[Figure]:
    """SQL of one request of each kind, counted in the database server's own log."""
    log = served.data / "logs" / "postgres.log"
    _log_statements(served, "all")
    found: dict[str, list[tuple[int, int]]] = {}
    with served.client(crowd.analysts[0]) as client:
        for number in range(times + 1):
            job = f"{JOBS}/{crowd.jobs[number % len(crowd.jobs)]}"
            made = ""
            for kind, method, path in (
                ("get", "GET", job),
                ("list", "GET", JOBS),
                ("events", "GET", f"{job}/events"),
                ("estimate", "POST", f"{JOBS}/estimate"),
                ("create", "POST", JOBS),
                ("cancel", "POST", f"{JOBS}/{{made}}/cancel"),
            ):
                start = log.stat().st_size
                body = crowd.body if kind in ("create", "estimate") else None
                answer = answered(client.request(method, path.format(made=made), json=body))
                made = str(answer.get("id", made))
                time.sleep(0.05)  # what follows the answer: the hint, the witness
                if number:  # the first round warms up
                    with log.open() as lines:
                        lines.seek(start)
                        found.setdefault(kind, []).append(_count(lines.read()))
    _log_statements(served, "none")
    # The median: the keeper's own look, every few seconds, falls into one of them at most.
    return [
        Figure(
            NAME,
            f"{kind}/statements",
            statistics.median(n for n, _ in counts),
            "SQL",
            None,
            {"control": int(statistics.median(c for _, c in counts))},
        )
        for kind, counts in found.items()
    ]


def _log_statements(served: Served, which: str) -> None:
    engine = sa.create_engine(served.superuser_database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER SYSTEM SET log_statement = '{which}'")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()
    time.sleep(0.5)


def _count(log: str) -> tuple[int, int]:
    """Statements that read or write, and those that do not."""
    texts = re.findall(r"LOG:  (?:statement|execute \w+|execute <unnamed>): ?(.*)", log)
    control = sum(1 for text in texts if CONTROL.match(text))
    return len(texts) - control, control


def poll(
    served: Served, crowd: Crowd, loads: Sequence[Load], needed: int, bar: Progress
) -> tuple[list[Answers], dict[int, int]]:
    """What came of each load, and PSS of the API by the number of requests answered until then.

    After the first `needed` loads Ctrl-C ends it, with what is known by then.
    """
    spawn = multiprocessing.get_context("spawn")
    done, (there, here) = spawn.Value("q", 0), spawn.Pipe(duplex=False)
    clients = spawn.Process(target=pollers.run, args=(crowd, loads, done, here))
    total = sum(load.requests for load in loads)
    marks = [10**n for n in range(3, 9) if 10**n <= total]
    task, seen, found = bar.add_task("requests", total=total), {}, []
    clients.start()
    here.close()
    try:
        while len(found) < len(loads):
            if there.poll(0.05):
                found.append(there.recv())
            while marks and done.value >= marks[0]:
                seen[marks.pop(0)] = served.memory().pss
            bar.update(task, completed=min(done.value, total))
        clients.join()
    except KeyboardInterrupt:
        if len(found) < needed:
            raise
        seen[done.value] = served.memory().pss
    finally:
        clients.kill()
    return found, seen


def times(prefix: str, answers: Answers) -> list[Figure]:
    """Median and 99th percentile of each kind of request."""
    return [
        Figure(NAME, f"{prefix}{kind}/p{percent}_ms", percentile(taken, percent), "ms", None, {"requests": len(taken)})
        for kind, taken in sorted(answers.milliseconds.items())
        for percent in (50, 99)
    ]


def memory(seen: dict[int, int]) -> list[Figure]:
    """The API's memory by requests answered, and how much it grew from the first mark to the last."""
    figures = [
        Figure(NAME, f"api_memory/{f'{mark:.2g}'.replace('e+0', 'e')}", pss / MIB, "MiB")
        for mark, pss in sorted(seen.items())
    ]
    if len(figures) > 1:
        growth, names = figures[-1].value - figures[0].value, [f.figure.rpartition("/")[2] for f in figures]
        figures.append(Figure(NAME, "api_memory_growth_mib", growth, "MiB", None, {"from": names[0], "to": names[-1]}))
    return figures


def after_cancels(cancels: int, bar: Progress) -> Figure:
    """On a service of its own, with a worker."""
    with serving() as served, working(served):
        crowd, _ = prepare(served, 0, bar)
        task = bar.add_task("cancelling jobs", total=cancels)
        with served.client() as client:
            seconds = seconds_until_started(client, crowd.body, cancels, lambda: bar.advance(task))
    return Figure(NAME, "new_job_after_cancels/seconds", seconds, "s", None, {"cancelled": cancels})


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--jobs", type=int, help="queued jobs (default 1000; with --quick 50)")
    made.add_argument("--requests", type=int, help="in all (default 100000; with --quick 1200)")
    made.add_argument("--paced", type=int, help="of these at one a second and client (default 3000; with --quick 300)")
    made.add_argument("--timed", type=int, help="of these at once, and timed (default 10000; with --quick 800)")
    made.add_argument("--cancels", type=int, help="jobs cancelled before a new one (default 250; with --quick 30)")
    options = made.parse_args(arguments)
    jobs = options.jobs or (50 if options.quick else 1000)
    requests = options.requests or (1200 if options.quick else 10**5)
    paced = options.paced or (300 if options.quick else 3000)
    timed = options.timed or (800 if options.quick else 10**4)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar, serving() as served:
        crowd, rate = prepare(served, jobs, bar)
        figures = [*statements(served, crowd), rate]
        loads = [Load(paced, 1.0), Load(timed, 0.0), Load(max(0, requests - paced - timed), 0.0)]
        (calm, busy, *more), seen = poll(served, crowd, loads, 2, bar)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        cancelled = after_cancels(options.cancels or (30 if options.quick else 250), bar)
    figures = times("", calm) + times("saturated/", busy) + figures
    detail: dict[str, object] = {"clients": crowd.pollers, **versions("fastapi", "uvicorn", "sqlalchemy", "psycopg")}
    figures.append(Figure(NAME, "requests_per_second", busy.requests / busy.seconds, "1/s", None, detail))
    figures += memory(seen)
    figures = [replace(f, detail=f.detail | {"queued": jobs}) for f in figures] + [cancelled]
    notes = [f"NOT answered as asked: {what}, {n} times" for a in (calm, busy, *more) for what, n in a.failed.items()]
    report(figures, options.json, notes)


if __name__ == "__main__":
    main()
