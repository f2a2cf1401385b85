"""Faults at random moments of live jobs, and the ledger checked after each job: nothing lost, nothing charged twice."""

import contextlib
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from cli.embedded.processes import tail
from domain.kit.tables import job, release
from ledger.verify import verify_budget
from tests.conftest import Databases
from tests.faults.injections import Fault, small_disk
from tests.faults.stack import LOOK, PATIENCE, Servers, Stack, stacked
from tests.faults.worker import NOISES
from tests.worker.books import by_fence, wrong

BUDGET = "budget_a"
LIMIT = "limit"
MOST_LOST = 2
"""After which there is no point in going on."""


@dataclass
class Row:
    """What a fault came to."""

    fault: str
    injected: int = 0
    jobs: int = 0
    lost: int = 0
    double_charges: int = 0
    orphaned_leases: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    what: list[str] = field(default_factory=list)
    """What was done when: seconds into the run, steps authorised."""

    def __str__(self) -> str:
        ends = ", ".join(f"{n} {status}" for status, n in sorted(self.ends.items()))
        return (
            f"{self.fault:20}{self.injected:9}{self.jobs:6}{self.lost:10}{self.double_charges:16}"
            f"{self.orphaned_leases:17}   {ends}"
        )


HEADER = f"{'fault':20}{'injected':>9}{'jobs':>6}{'jobs lost':>10}{'double charges':>16}{'orphaned leases':>17}   ends"


def run_fault(
    servers: Servers, databases: Databases, model: Path, name: str, fault: Fault, *, injections: int, seed: int
) -> Row:
    """Inject a fault so many times at least, into as many jobs as that takes."""
    row, chance = Row(name), random.Random(f"{name} {seed}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tacit-faults-")))
        if fault.full_disk:
            stack.enter_context(small_disk(folder / "blobs"))
        more = {"TACIT_JOB_SECONDS_FILE": str(folder / LIMIT)} if fault.limited else {}
        more["FAULTS_LASTING"] = str(int(not fault.fresh))
        (folder / LIMIT).write_text("60")
        running = stack.enter_context(
            stacked(
                servers,
                databases,
                folder,
                model,
                lease_seconds=fault.lease_seconds,
                workers=fault.workers,
                environment=fault.environment | more,
            )
        )
        began = time.monotonic()
        while row.injected < injections and row.jobs < 4 * injections and row.lost < MOST_LOST:
            _one_round(running, fault, row, chance, began)
        _close_books(running, row)
    return row


def _one_round(stack: Stack, fault: Fault, row: Row, chance: random.Random, began: float) -> None:
    """Some jobs, faults while they live, and a look at what became of each."""
    if fault.limited:
        (stack.told / LIMIT).write_text(f"{chance.uniform(1, 6):.2f}")
    ids = [stack.submit(fault.steps) for _ in range(fault.at_once)]
    for _ in range(fault.per_job):
        id = chance.choice(ids)
        if not fault.limited:  # the limit is the moment
            stack.wait_for_a_moment(id, chance)
        if not any(map(stack.service.open, ids)):
            break
        at = f"{time.monotonic() - began:.1f} s, step {stack.service.authorised(id)}"
        if (what := fault.inject(stack, id, chance)) is not None:
            row.injected += 1
            row.what.append(f"{at}: {what}")
    for id in ids:
        row.jobs += 1
        _wait_for_end(stack, id)
        _judge(stack, fault, row, id)
    row.wrong += filter(None, (look() for look in stack.later))
    stack.later.clear()


def _wait_for_end(stack: Stack, id: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while stack.service.open(id) and time.monotonic() < deadline:
        time.sleep(LOOK)


def _judge(stack: Stack, fault: Fault, row: Row, id: str) -> None:
    """Count what is wrong with one job."""
    service = stack.service
    status = service.status(id)
    row.ends[status] += 1
    if status not in fault.ends:
        row.lost += 1
        error = service.one(sa.select(job.c.error).where(job.c.id == id))[0]
        row.wrong.append(
            f"{id} is {status}: {error}; the workers' log ends:\n{tail(service.folder / 'worker.log', 20)}"
        )
    if service.open(id):
        return  # nothing is settled yet
    drawn, twice = _noises(stack, id)
    authorised = by_fence(service, id)
    results = service.one(sa.select(sa.func.count()).where(release.c.job_id == id))[0]
    holds = {
        f"noises {drawn}, authorised {authorised}": all(drawn[f] <= authorised[f] for f in drawn),
        f"{twice} noises used twice": twice == 0,
        f"{results} results": results == (2 if status == "succeeded" else 0),
    }
    found = [*wrong(service, id), *(f"{id}: {what}" for what, so in holds.items() if not so)]
    row.double_charges += len(found)
    row.wrong += found


def _noises(stack: Stack, id: str) -> tuple[Counter[int], int]:
    """Noises that were drawn for a job, by fence, and how many of them were drawn before."""
    notes = stack.told / NOISES
    lines = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
    own = [(int(fence), digest) for job_id, fence, digest in lines if job_id == id]
    return Counter(fence for fence, _ in own), len(own) - len({digest for _, digest in own})


def _close_books(stack: Stack, row: Row) -> None:
    """With all jobs ended and no worker left: no lease is live, nothing stays reserved, the chain holds."""
    for worker in [*stack.workers]:
        worker.terminate()
        stack.workers.remove(worker)
    stack.drop_orphans()
    row.orphaned_leases += stack.orphans
    row.wrong += stack.wrong
    with stack.service.admin.connect() as c:
        if findings := verify_budget(c, BUDGET):
            row.double_charges += len(findings)
            row.wrong.append(f"the ledger: {findings}")
    reserved = stack.service.one(sa.text("SELECT reserved FROM ledger.budget")).reserved  # type: ignore[arg-type]
    if any(reserved) and row.lost == 0:
        row.wrong.append(f"still reserved: {reserved}")
