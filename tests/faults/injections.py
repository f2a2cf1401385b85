"""One function a fault: it does its damage to a running stack and answers what it did, None when there was nothing left
to damage. When it comes is the matrix's business, what follows within it is drawn from `chance`."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from domain.kit.tables import checkpoint, job
from ledger.tables import authorisation, reservation, work
from tests.faults.stack import LEASE, PATIENCE, QUEUE, Stack
from tests.faults.worker import CLOCK, HANG, MEMORY
from tests.worker.service import Service, until

Inject = Callable[[Stack, str, random.Random], str | None]
GRACE = 200  # seconds in which a drained worker ends
MOST_CHUNKS = 3
"""Twentieths of a job that a worker may begin between a look and the SIGTERM that follows it."""


@dataclass(frozen=True)
class Fault:
    """How a fault is injected, and what its jobs run on."""

    inject: Inject
    per_job: int = 3
    at_once: int = 1
    """Jobs that are open together."""
    steps: int = 300
    workers: int = 1
    lease_seconds: int = LEASE
    ends: tuple[str, ...] = ("succeeded",)
    environment: dict[str, str] = field(default_factory=dict)
    fresh: bool = False
    """Whether each job gets a fresh process, as in the product."""
    full_disk: bool = False
    """Whether blobs lie on a small disk of their own."""
    limited: bool = False
    """Whether each job has a time limit, drawn anew."""


def kill_worker(stack: Stack, id: str, chance: random.Random) -> str:
    """SIGKILL, to the worker and its training process at once or to either alone."""
    worker = stack.workers[0]
    victim = chance.choice(["both", "child", "parent"])
    if victim == "child":
        if (pid := worker.child()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return victim
    if victim == "both":
        stack.kill(worker)
    else:  # its child trains on, and nobody looks after it
        stack.workers.remove(worker)
        worker.kill()
    stack.start_worker()
    return victim


def drain(stack: Stack, id: str, chance: random.Random) -> str | None:
    """SIGTERM, as a deployment ends a worker at work; another takes its place."""
    until(lambda: stack.holder(id) is not None or not stack.service.open(id), PATIENCE, lambda: "nobody took the job")
    time.sleep(chance.uniform(0, 2))
    if stack.holder(id) is None:
        return None
    worker, before = stack.workers.pop(0), stack.service.authorised(id)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(GRACE)
    after = stack.service.authorised(id)
    if after > before + MOST_CHUNKS * stack.service.ledger(id).steps_max // 20:
        stack.wrong.append(f"a drained worker went on from {before} to {after}")
    stack.drop_orphans()  # its lease lasts for long yet: given back, or the job waits for as long
    stack.start_worker()
    return f"gone {after - before} steps later"


def freeze_into_zombie(stack: Stack, id: str, chance: random.Random) -> str | None:
    """SIGSTOP until another worker has the job, SIGCONT while that one trains: the zombie may write and charge nothing."""
    zombie = stack.holder(id)
    if zombie is None or (child := zombie.child()) is None:
        return None
    for pid in (child, zombie.process.pid):
        os.kill(pid, signal.SIGSTOP)
    fence = stack.service.ledger(id).fence
    before = _written(stack, id, fence)
    try:
        until(
            lambda: stack.service.ledger(id).fence > fence or not stack.service.open(id),
            PATIENCE,
            lambda: "nobody took over",
        )
        time.sleep(chance.uniform(0, 2))
    finally:
        for pid in (child, zombie.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    stack.later.append(
        lambda: None if _written(stack, id, fence) <= before else f"the zombie of fence {fence} went on writing"
    )
    return f"fence {fence}"


def _written(stack: Stack, id: str, fence: int) -> tuple[int, int]:
    """Steps authorised and checkpoints known under a fence; a later attempt may drop the latter."""
    steps = (
        sa.select(sa.func.coalesce(sa.func.sum(authorisation.c.steps), 0))
        .join(reservation, reservation.c.id == authorisation.c.reservation_id)
        .where(reservation.c.job_id == id, authorisation.c.fence == fence)
    )
    kept = sa.select(sa.func.count()).where(checkpoint.c.job_id == id, checkpoint.c.fence == fence)
    return int(stack.service.one(steps)[0]), int(stack.service.one(kept)[0])


def restart_broker(stack: Stack, id: str, chance: random.Random) -> str:
    """Ended or killed, and back after a while; what its file had not kept is lost."""
    how = chance.choice([signal.SIGTERM, signal.SIGKILL])
    away = chance.uniform(0, 3)
    stack.servers.redis.process.stop(how, 20)
    time.sleep(away)
    stack.servers.start_redis()
    return f"{how.name}, away for {away:.1f} s"


def empty_broker(stack: Stack, id: str, chance: random.Random) -> str:
    stack.broker.flushall()
    return "FLUSHALL"


def restart_database(stack: Stack, id: str, chance: random.Random) -> str:
    """As pg_ctl's modes immediate (SIGQUIT: no rollback, recovery at the next start) and fast (SIGINT) do."""
    how = chance.choice([signal.SIGQUIT, signal.SIGINT])
    away = chance.uniform(0, 2)
    stack.servers.postgres.process.stop(how, 30)
    time.sleep(away)
    stack.servers.start_postgres()
    stack.forget_connections()
    return f"{how.name}, away for {away:.1f} s"


def double_hints(stack: Stack, id: str, chance: random.Random) -> str:
    many = chance.randint(1, 3)
    for _ in range(many):
        stack.hint(id)
    return f"{many} more"


def lose_hint(stack: Stack, id: str, chance: random.Random) -> str | None:
    """One that waits on the queue."""
    waiting = stack.broker.lrange(QUEUE, 0, -1)
    lost = chance.choice(waiting) if waiting else None
    return "one of the queue" if lost is not None and stack.broker.lrem(QUEUE, 1, lost) else None


def fill_disk(stack: Stack, id: str, chance: random.Random) -> str:
    """No room, or a little, for a while."""
    left, full = chance.choice([0, chance.randint(0, 60_000)]), chance.uniform(0.3, 4)
    with no_room(stack, left) as how:
        time.sleep(full)
    return f"{how}, {left} bytes left for {full:.1f} s"


@contextlib.contextmanager
def no_room(stack: Stack, left: int) -> Iterator[str]:
    """Leave so many bytes: on the disk, or, where nothing can be mounted, for each file that a worker writes."""
    blobs = stack.service.folder / "blobs"
    if blobs.is_mount():
        filler = blobs / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, os.statvfs(blobs).f_bavail * os.statvfs(blobs).f_frsize - left))
        try:
            yield "disk"
        finally:
            filler.unlink()
        return
    victims = [pid for worker in stack.workers for pid in (worker.process.pid, worker.child()) if pid is not None]
    unlimited = resource.RLIM_INFINITY
    for pid in victims:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (left, unlimited))
    try:
        yield "files"
    finally:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 300) -> Iterator[None]:
    """Mounted on the folder where that is allowed; larger than what a store keeps free."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run_out_of_memory(stack: Stack, id: str, chance: random.Random) -> str | None:
    """Raised in the next micro-batch as a GPU, Python or torch's allocator does; or killed, as the kernel does."""
    if chance.random() < 0.15:
        holder = stack.holder(id)
        if holder is None or (child := holder.child()) is None:
            return None
        os.kill(child, signal.SIGKILL)
        return "killed by the kernel"
    what = f"{chance.choice(['forward', 'backward'])} {chance.choice(['gpu', 'host', 'allocator'])}"
    return what if _tell(stack, id, MEMORY, what) else None


def outlast_limit(stack: Stack, id: str, chance: random.Random) -> str | None:
    """The job is made for longer than the limit that was drawn for it; now and then a step hangs."""
    stack.later.append(lambda: None if _code(stack, id) == "time_limit" else f"{id} ended by {_code(stack, id)}")
    if chance.random() < 0.15:
        return "a step that hangs" if _tell(stack, id, HANG, "") else None
    until(lambda: not stack.service.open(id), PATIENCE, lambda: "no limit ended it")
    return "more steps than time"


def _code(stack: Stack, id: str) -> str | None:
    error = stack.service.one(sa.select(job.c.error).where(job.c.id == id)).error
    return None if error is None else str(error["code"])


def _tell(stack: Stack, id: str, what: str, how: str) -> bool:
    """Have the next micro-batch stumble; False when the job ended before one came."""
    path = stack.told / what
    path.with_suffix(".new").write_text(how)
    path.with_suffix(".new").rename(path)
    until(lambda: not path.exists() or not stack.service.open(id), PATIENCE, lambda: f"nobody took {what}")
    taken = not path.exists()
    path.unlink(missing_ok=True)
    return taken


def jump(stack: Stack, id: str, chance: random.Random) -> str:
    """The wall clock of the workers, or of the database; with a worker killed at the same moment, now and then."""
    seconds = chance.choice([-1, 1]) * chance.choice([90, 3600, 86400])
    if chance.random() < 0.5:
        now = float((stack.told / CLOCK).read_text())
        (stack.told / CLOCK).write_text(str(now + seconds))
        whose = "the workers' clock"
    else:
        jump_database(stack.service, seconds)
        whose = "the database's clock"
    if chance.random() < 0.15:
        stack.kill(stack.workers[0])
        stack.start_worker()
        whose += ", worker killed"
    return f"{whose} {seconds:+} s"


def jump_database(service: Service, seconds: float) -> None:
    """A clock that jumps ahead is one before which all that was written lies further back."""
    back = sa.func.make_interval(0, 0, 0, 0, 0, 0, float(seconds))
    with service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))  # triggers allow no such change
        c.execute(sa.update(work).values(lease_until=work.c.lease_until - back))
        c.execute(sa.update(job).values(hinted_at=job.c.hinted_at - back))


FAULTS: dict[str, Fault] = {
    "worker killed": Fault(kill_worker, per_job=4, fresh=True),
    "worker drained": Fault(drain, lease_seconds=30, steps=1000, fresh=True),
    "paused zombie": Fault(freeze_into_zombie, per_job=2, workers=2, steps=400),
    "broker restarted": Fault(restart_broker),
    "broker emptied": Fault(empty_broker, at_once=2),
    "database restarted": Fault(restart_database),
    "hints doubled": Fault(double_hints, at_once=2),
    "hints lost": Fault(lose_hint, at_once=4, per_job=2, steps=200),
    "disk full": Fault(fill_disk, full_disk=True, environment={"TACIT_DISK_RESERVE": "0"}),
    "out of memory": Fault(run_out_of_memory, per_job=4),
    "time limit": Fault(outlast_limit, per_job=1, steps=2_000, ends=("failed",), limited=True),
    "clock jump": Fault(jump, environment={"FAULTS_CLOCK": "1"}),
}
