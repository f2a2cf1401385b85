"""A service on servers of its own, so that they can be restarted and emptied: Postgres, Redis, workers, one tenant."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis as redis_client
import sqlalchemy as sa

from cli.embedded import postgres, redis
from domain.jobs.hints import HINT_ERRORS, redis_url, send_hint
from domain.kit.tables import job
from ledger.tables import work
from tests.conftest import SUPERUSER_PASSWORD, Databases, _started
from tests.faults.worker import CLOCK
from tests.worker.service import Service, Worker

LEASE = 4  # seconds
LOOK = 0.2  # seconds between two looks at a job
PATIENCE = 150  # seconds in which a job ends after its last fault, or is lost
SIGMA = 20.0
"""So much noise that the budget has room for all jobs of a run."""
MODULE = "tests.faults.worker"
QUEUE = "tacit:gpu"
"""Redis's list of hints that no worker has taken."""


@dataclass
class Servers:
    """A Postgres that keeps every commit that it has answered, and a Redis as `tacit up` starts it."""

    folder: Path
    postgres: "postgres.Postgres" = field(init=False)
    redis: "redis.Broker" = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.folder.chmod(0o711)  # Postgres may run as another user
        self.start_postgres()
        self.start_redis()

    def start_postgres(self) -> None:
        # Without fsync a killed server loses nothing, a killed machine would: only the first happens here.
        self.postgres = _started(
            lambda: postgres.start(
                self.folder / "postgres",
                password=SUPERUSER_PASSWORD,
                log=self.folder / "postgres.log",
                options=["fsync=off", "max_connections=100"],
            )
        )

    def start_redis(self) -> None:
        self.redis = _started(lambda: redis.start(self.folder / "redis", log=self.folder / "redis.log"))

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.stop()


@dataclass
class Stack:
    """One tenant's service with its workers."""

    servers: Servers
    service: Service
    lease_seconds: int = LEASE
    environment: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What an injection saw that must not be."""
    later: list[Callable[[], str | None]] = field(default_factory=list)
    """What is asked once the jobs have ended: each answers what is wrong."""
    orphans: int = 0
    """Leases that were live although nobody was there to hold them."""

    @property
    def told(self) -> Path:
        """Where workers look for what is to go wrong."""
        return self.service.folder

    @property
    def broker(self) -> "redis_client.Redis":
        url = redis_url(self.service.broker)
        assert url is not None
        return redis_client.Redis.from_url(url)

    def start_worker(self) -> Worker:
        environment = {"FAULTS": str(self.told), "TACIT_PROFILE_AFTER": "0", "TACIT_RECONCILE_SECONDS": "1"}
        environment |= self.environment
        fresh = environment.get("FAULTS_CLOCK") == "1"  # in what is forked, modules keep the true `time.time` by name
        self.workers.append(Worker.start(self.service, self.lease_seconds, environment, module=MODULE, fresh=fresh))
        return self.workers[-1]

    def submit(self, steps: int) -> str:
        """As the API does: a hint that cannot be sent is left to the reconciler."""
        id = self.service.submit(steps=steps, sigma=SIGMA, hint=False)
        with contextlib.suppress(*HINT_ERRORS):
            self.hint(id)
            with self.service.api.begin() as c:
                c.execute(sa.update(job).where(job.c.id == id).values(hinted_at=sa.func.now()))
        return id

    def hint(self, id: str) -> None:
        send_hint(self.service.broker, id)

    def wait_for_a_moment(self, id: str, chance: random.Random) -> None:
        """Half of the moments lie in the seconds of starting, the others somewhere in the steps still to go."""
        if chance.random() < 0.4:
            time.sleep(chance.uniform(0, 3))
            return
        paid = self.service.ledger(id)
        goal = chance.uniform(paid.steps_authorised, paid.steps_max * 0.9)
        deadline = time.monotonic() + PATIENCE
        while self.service.authorised(id) < goal and self.service.open(id) and time.monotonic() < deadline:
            time.sleep(LOOK)
        time.sleep(chance.uniform(0, 0.2))

    def holder(self, id: str) -> Worker | None:
        """The worker whose process holds the lease on a job."""
        held = sa.select(work.c.owner).where(work.c.job_id == id, work.c.lease_until > sa.func.clock_timestamp())
        for row in self.service.all(held):
            pid = int(row.owner.rpartition(":")[2])
            return next((w for w in self.workers if w.child() == pid), None)
        return None

    def drop_orphans(self) -> None:
        """Count the leases that are live now, when nobody is there to hold one, and end them."""
        with self.service.admin.begin() as c:
            live = sa.update(work).where(work.c.lease_until > sa.func.clock_timestamp())
            self.orphans += c.execute(live.values(lease_until=sa.func.clock_timestamp())).rowcount

    def forget_connections(self) -> None:
        """Those of the test itself, after the database was restarted."""
        self.service.api.dispose()
        self.service.admin.dispose()

    def kill(self, worker: Worker) -> None:
        """The whole worker at once, its pool's process too."""
        self.workers.remove(worker)
        victims = [pid for pid in (worker.child(), worker.process.pid) if pid is not None]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.kill()

    def close(self) -> None:
        for worker in [*self.workers]:
            for pid in (worker.process.pid, worker.child()):
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            self.kill(worker)


@contextlib.contextmanager
def stacked(
    servers: Servers,
    databases: Databases,
    folder: Path,
    model: Path,
    *,
    lease_seconds: int,
    workers: int,
    environment: dict[str, str],
) -> Iterator[Stack]:
    """A service with its workers on a fresh database and an empty broker."""
    made = databases.create()
    service = Service(made, servers.redis.url, folder, model)
    (folder / CLOCK).write_text("0")
    stack = Stack(servers, service, lease_seconds, environment)
    stack.broker.flushall()
    for _ in range(workers):
        stack.start_worker()
    try:
        yield stack
    finally:
        stack.close()
        stack.forget_connections()
        databases.drop(made.name)
