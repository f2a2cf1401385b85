"""What other threads and processes do in the races. Imports little, because many of them start at once."""

import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import sqlalchemy as sa

from domain.jobs.releases import Result, publish
from domain.kit import tables
from domain.kit.ids import new_id
from domain.storage.sealing import new_seal
from ledger import work
from ledger.errors import BudgetExceeded
from ledger.reserve import Charge, Priced, reserve, settle

APART = multiprocessing.get_context("forkserver")
"""Processes forked from one that has imported this and nothing else."""
APART.set_forkserver_preload([__name__])


def submit(c: sa.Connection, tenant: str, key: str, files: list[tuple[str, str]], phase: Priced) -> str:
    """A job over (file, budget) pairs, as the API inserts it."""
    job = new_id("ftjob", "-")
    c.execute(
        tables.job.insert().values(
            id=job, tenant_id=tenant, created_by=key, model="m", method={}, plan={}, privacy={}, seed=0
        )
    )
    for file, budget in files:
        c.execute(tables.job_file.insert().values(job_id=job, file_id=file, budget_id=budget))
    reserve(c, job, [Charge(new_id("resv"), f, b, [phase]) for f, b in files])
    return job


def answer(error: BaseException) -> str:
    """The SQLSTATE behind a refusal, or what else it was."""
    cause = error if isinstance(error, sa.exc.DBAPIError) else error.__cause__
    return str(getattr(getattr(cause, "orig", None), "sqlstate", None) or type(error).__name__)


def submit_often(
    url: str,
    tenant: str,
    key: str,
    file: str,
    budget: str,
    phase: Priced,
    count: int,
    start: Barrier,
    answers: "Queue[dict[str, int]]",
) -> None:
    """Submit `count` jobs once everybody is ready; answers how often each SQLSTATE came back."""
    engine = sa.create_engine(url)
    engine.connect().close()
    start.wait(300)
    seen: Counter[str] = Counter()
    for _ in range(count):
        try:
            with engine.begin() as c:
                submit(c, tenant, key, [(file, budget)], phase)
            seen["admitted"] += 1
        except Exception as error:  # noqa: BLE001  # counted, whatever it was
            seen[answer(error)] += 1
    answers.put(dict(seen))


def admitted(url: str, tenant: str, key: str, file: str, budget: str, phase: Priced, count: int) -> int:
    """Submit `count` jobs; answers how many found room."""
    engine = sa.create_engine(url)
    found = 0
    for _ in range(count):
        try:
            with engine.begin() as c:
                submit(c, tenant, key, [(file, budget)], phase)
            found += 1
        except BudgetExceeded:
            pass
    return found


def zombie(url: str, job: str, tenant: str, seconds: float, moment: str) -> None:
    """Claim, work, and wait for a line (stopped meanwhile) `outside` or `inside` the publishing transaction; then go
    on as if nothing had happened, and say what came of it."""
    engine = sa.create_engine(url)
    with engine.begin() as c:
        lease = work.claim(c, job, "zombie", seconds)
        assert lease is not None
    with engine.begin() as c:
        work.authorise(c, lease, 0, 10)
    kinds = ("adapter", "report")
    results = [Result(kind, kind, 1, "00" * 32, new_seal(bytes(32), f"late/{kind}", 1)) for kind in kinds]

    def wait() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    def release(c: sa.Connection) -> None:
        file: dict[str, object]
        file = {"id": new_id("file", "-"), "tenant_id": tenant, "purpose": "fine-tune-results", "filename": "late"}
        file |= {"status": "processed", "blob": "late", "sha256": "00" * 32, "binding": bytes(32)}
        c.execute(tables.file.insert().values(**file))
        late = {"id": new_id("release"), "job_id": job, "file_id": file["id"], "kind": "adapter"}
        c.execute(tables.release.insert().values(**late, fence=lease.fence))

    def publish_after_waiting(c: sa.Connection) -> None:
        publish(c, lease, tenant, results)
        wait()

    checkpoint = tables.checkpoint.insert().values(
        job_id=job, fence=lease.fence, step=99, blob=f"jobs/{job}/checkpoints/late"
    )
    acts: dict[str, Callable[[sa.Connection], object]] = {
        "authorise": lambda c: work.authorise(c, lease, 0, 1),
        "renew": lambda c: work.renew(c, lease, 60),
        "checkpoint": lambda c: c.execute(checkpoint),
        "release": release,
        "publish": lambda c: publish(c, lease, tenant, results),
        "settle": lambda c: settle(c, job, "cancelled", lease.fence),
        "settle without a fence": lambda c: settle(c, job, "cancelled"),
    }
    if moment == "inside":
        acts = {"publish": publish_after_waiting}
    else:
        wait()
    got = {}
    for name, act in acts.items():
        try:
            with engine.begin() as c:
                act(c)
            got[name] = "done"
        except Exception as error:  # noqa: BLE001  # told, whatever it was
            got[name] = answer(error)
    print(json.dumps(got), flush=True)


if __name__ == "__main__":
    zombie(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5])
