"""One attempt at a job: claim it, do what it needs, and bring it to its end or leave the rest to the next attempt."""

import time
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.federated.rounds import Role, role_of
from domain.kit.logs import describe
from domain.kit.settings import WorkerSettings
from domain.storage.blobs import open_store
from ledger import work
from ledger.errors import (
    AlreadySettled,
    BudgetFrozen,
    PauseRequested,
    ReservationExpired,
    StaleFence,
    StopRequested,
)
from worker import checkpoints, ends
from worker.errors import DataPhaseFailed, Refused, Unavailable
from worker.federated.coordinator import Coordinator
from worker.federated.silo import SiloTraining
from worker.lease import Heartbeat, claim
from worker.log import log
from worker.tracing import Spans
from worker.training import Training

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


def attempt(engine: sa.Engine, settings: WorkerSettings, job_id: str, tracer: "Tracer | None" = None) -> None:
    """Work on a job until it is finished, somebody else has it, or this worker must let go.

    Raises sqlalchemy's errors while the database is away: the lease then runs out and the job is sent again.
    """
    store = open_store(settings, engine)
    claimed_at = time.monotonic()
    with engine.begin() as connection:
        role = role_of(connection, job_id)
        lease = claim(connection, job_id, settings.lease_seconds, paid=role != "federated")
        if lease is None:
            return
        worked = work.count(connection, lease, 0.0)
    beating = Heartbeat(engine, lease, settings.lease_seconds, claimed_at, worked=worked, limit=settings.job_seconds)
    with beating as heartbeat:
        try:
            with Spans(tracer, lease) as spans:
                finished = _KINDS[role](engine, store, settings, lease, heartbeat, spans).run()
        except ReservationExpired:
            with engine.begin() as connection:
                ends.expire(connection, job_id, lease.fence)
            finished = True
        except Refused as reason:
            log.error("job %s: refused: %s: %s", job_id, reason.code, reason.message)
            with engine.begin() as connection:
                ends.fail(connection, job_id, lease.fence, reason)
            finished = True
        except DataPhaseFailed as error:
            log.error("job %s: failed in the data phase: %s", job_id, describe(error))
            finished = ends.fail_privately(engine, lease)
        except (StaleFence, AlreadySettled):
            log.warning("job %s: somebody else has it; nothing of this attempt is kept", job_id)
            return
        except (StopRequested, PauseRequested, Unavailable, BudgetFrozen) as error:
            log.warning("job %s: let go: %s", job_id, describe(error))
            finished = False
        try:
            finished = finished or ends.let_go(engine, lease)
        except (StaleFence, AlreadySettled):
            log.warning("job %s: the lease ran out before it was given back", job_id)
    if finished:
        checkpoints.discard(engine, store, job_id)
    with engine.begin() as connection:
        work.drop(connection, lease)


_KINDS: dict[Role | None, type[Training]] = {None: Training, "silo": SiloTraining, "federated": Coordinator}
