"""Workers killed with SIGKILL at random moments, while they start included: every job finishes, paid for exactly once."""

import contextlib
import os
import random
import re
import signal
import time
from typing import Any

import pytest
import sqlalchemy as sa

from domain.kit.tables import checkpoint
from ledger.tables import entry, reservation
from tests.worker.service import PATIENCE, Service, until
from tests.worker.test_job import adapter_moved

STEPS = 900  # some ten seconds: longer than the first kill waits
LEASE = 3


def survive_kills(service: Service, seed: int, times: int = 3) -> dict[str, Any]:
    """One job and its kills, each of the pool process or of the whole worker; answers what was seen."""
    chance = random.Random(seed)
    kills = []
    worker = service.start_worker(lease_seconds=LEASE)
    try:
        id = service.submit(steps=STEPS)
        for _ in range(times):
            # Half of the kills come while a lease runs out or a process starts, the others in the steps still to go.
            began = time.monotonic()
            if chance.random() < 0.5:
                time.sleep(chance.uniform(0, LEASE + 2))
            else:
                now = service.authorised(id)
                goal = chance.uniform(now, STEPS * 0.9)
                until(
                    lambda goal=goal: service.authorised(id) >= goal or not service.open(id),
                    PATIENCE,
                    lambda: "no progress",
                )
            assert service.open(id), "the job was too short to be killed so often"
            victim = chance.choice(["child", "worker"])
            kept = service.one(sa.select(sa.func.max(checkpoint.c.step)).where(checkpoint.c.job_id == id))[0]
            kills.append((victim, round(time.monotonic() - began, 1), service.authorised(id), kept))
            if victim == "worker":
                worker.kill()
                worker = service.start_worker(lease_seconds=LEASE)
            elif (child := worker.child()) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        service.wait(id, "succeeded")
        service.wait_tidied(id)
    finally:
        worker.kill()
    paid = service.ledger(id)
    starts = [int(step) for step in re.findall(rf"{id}: goes on from step (\d+) ", worker.log.read_text())]
    assert 0 < paid.steps_authorised <= paid.steps_max == STEPS
    assert service.settlement(id).spent_change == [paid.steps_authorised * cost for cost in paid.step_cost]
    settled = (
        sa.select(sa.func.count())
        .select_from(entry.join(reservation, reservation.c.id == entry.c.reservation_id))
        .where(reservation.c.job_id == id)
    )
    assert service.one(settled)[0] == 2  # one charge, one settlement
    assert adapter_moved(service, id)
    return {"kills": kills, "starts": starts, "authorised": paid.steps_authorised, "fence": paid.fence}


@pytest.mark.slow
def test_a_job_survives_two_kills(service: Service) -> None:
    seen = survive_kills(service, 2, times=2)
    assert max(seen["starts"]) > 0, seen


@pytest.mark.verify
@pytest.mark.timeout(3600)
def test_five_jobs_survive_three_kills_each(service: Service) -> None:
    runs = []
    for seed in range(100, 105):
        runs.append(survive_kills(service, seed))
        print(runs[-1], flush=True)
    assert max(max(run["starts"]) for run in runs) > 0
