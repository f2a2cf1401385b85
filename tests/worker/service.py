"""What the API would have written: tenant, budget, files, jobs; and a real worker beside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cli.embedded.processes import PROC
from domain.files.binding import bind
from domain.jobs.hints import send_hint
from domain.kit.ids import new_id
from domain.kit.tables import api_key, checkpoint, file, job, job_file, release, tenant
from domain.storage.blobs import put_file
from domain.storage.rows import RowWriter
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import get_method
from dpcore.terms.program import Phase, Program, Unit, of_users, scaled
from dpcore.terms.tasks import TaskKind, get_kind
from dpcore.terms.teachers import teacher_job
from ledger.budgets import Reference, open_budget
from ledger.reserve import Charge, Priced, reserve
from ledger.tables import entry, phase, reservation, work
from tests.conftest import MASTER_KEY, Database, blob_store
from tests.worker import tiny
from tests.worker.forked import ROOT, Forked
from tests.worker.pool import NAME

DECLARED = 400
MAX_LENGTH = 16
PATIENCE = 300  # seconds: a fresh worker imports torch, which takes its time on a busy machine


@dataclass
class Service:
    """One tenant's service on its own database, broker queue and blob folder."""

    database: Database
    broker: str
    folder: Path
    model: Path

    def __post_init__(self) -> None:
        self.api = sa.create_engine(self.database.api_url)
        self.admin = sa.create_engine(self.database.superuser_url)  # the tests may look at everything
        self.store = blob_store(self.folder / "blobs", self.api)
        with self.api.begin() as c:
            c.execute(tenant.insert().values(id="tenant_a", name="a"))
            c.execute(
                api_key.insert().values(
                    id="key_a", tenant_id="tenant_a", name="a", prefix="p", mac=b"m", scopes=["steward", "analyst"]
                )
            )
            open_budget(
                c,
                id="budget_a",
                tenant_id="tenant_a",
                name="a",
                epsilon=Decimal(100),
                delta=Decimal("1e-5"),
                unit="record",
                max_records_per_user=None,
                reference=Reference(0.05, 200),
            )
        self.train_file = self.add_file(*tiny.rows(DECLARED, seed=1), private=True)
        self.eval_file = self.add_file(*tiny.rows(100, seed=2), private=False)

    def add_file(
        self,
        texts: Sequence[str | Sequence[str]],
        labels: Sequence[int],
        *,
        private: bool,
        tenant_id: str = "tenant_a",
        budget_id: str = "budget_a",
        home: str = "",
        names: Sequence[str] = tiny.LABELS,
        task: TaskKind = "classification",
        users: int | None = None,
        lots: Sequence[int] | None = None,
    ) -> str:
        """A checked file, as ingest leaves it. names: of its labels, in its order. users: how many, row after row. lots: of
        the rows."""
        id = new_id("file", "-")
        path = self.folder / id
        writer, labelled = (
            RowWriter(path, task, users=users is not None, lots=lots is not None),
            get_kind(task).labelled,
        )
        for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
            writer.add(
                [text] if isinstance(text, str) else list(text),
                label if labelled else None,
                None if users is None else number % users,
                lots and lots[number],
            )
        writer.close()
        stored = put_file(self.store, f"{home}files/{id}", path)
        values: dict[str, Any] = {"purpose": "evals"}
        if private:
            values = {"purpose": "fine-tune", "budget_id": budget_id, "declared_size": DECLARED}
        values |= {"id": id, "tenant_id": tenant_id, "task": task, "filename": "rows.jsonl", "bytes": 1}
        values |= {"status": "processed", "sha256": "0" * 64, "max_length": MAX_LENGTH}
        values |= {"labels": list(names)} if labelled else {}
        with self.api.begin() as c:
            c.execute(file.insert().values(**values, blob=stored.name, binding=bind(c, stored, values)))
        return id

    def submit(
        self,
        *,
        steps: int = 40,
        batch: int = 40,
        sigma: float = 3.0,
        model: str = "tiny",
        model_revision: str | None = None,
        train_file: str | None = None,
        eval_file: str | None = None,
        options: dict[str, Any] | None = None,
        numbers: dict[str, Any] | None = None,
        reserved_sigma: float | None = None,
        hint: bool = True,
        method: str = "lora",
        task: TaskKind = "classification",
        budget_id: str = "budget_a",
        learning_rate: float = 0.02,
        folder: Path | None = None,
        intended_use: str | None = None,
        synthetic: dict[str, Any] | None = None,
        audit: bool = False,
        phases: Callable[[Phase], tuple[Phase, ...]] = lambda phase: (phase,),
        unit: Unit | None = None,
    ) -> str:
        """A queued job with its reservation. numbers: what the method is asked for besides. folder: of the model, where
        it is not the usual one. phases: what becomes of the last phase that the
        method makes. unit: of the budget, where the method does not tell."""
        spec = get_method(method)
        wanted = spec.Options(**(options or {}))
        request = spec.Request(steps=steps, batch_size=batch, learning_rate=learning_rate, **(numbers or {}))
        # epsilon steers defaults alone, and nothing is left to it here
        chosen = spec.resolve(
            request,
            wanted,
            task=task,
            declared_size=DECLARED,
            epsilon=1.0,
            facts=read_facts(folder or self.model),
        )
        *first, last = scaled(spec.phases(wanted, chosen, declared_size=DECLARED), sigma)
        program = Program(
            method=method,
            options=wanted.model_dump(mode="json"),
            unit=unit or ("user" if of_users((*first, last)) else "record"),
            max_length=MAX_LENGTH,
            seed=7,
            phases=(*first, *phases(last)),
        )
        id, source = new_id("ftjob", "-"), train_file or self.train_file
        with self.api.begin() as c:
            c.execute(
                job.insert().values(
                    id=id,
                    tenant_id="tenant_a",
                    created_by="key_a",
                    model=model,
                    model_revision=model_revision,
                    teacher_job=teacher_job(program),
                    validation_file=eval_file or self.eval_file,
                    method={"type": method},
                    plan=program.model_dump(mode="json"),
                    privacy={"epsilon": 5.0, "delta": 1e-5},
                    seed=7,
                    intended_use=intended_use,
                    synthetic=synthetic,
                    audit=audit,
                )
            )
            c.execute(job_file.insert().values(job_id=id, file_id=source, budget_id=budget_id))
            priced = [
                Priced(
                    p.mechanism.sample_rate,
                    reserved_sigma or p.mechanism.noise_multiplier,
                    p.steps,
                    p.mechanism.indivisible,
                )
                for p in program.phases
            ]
            reserve(c, id, [Charge(new_id("reservation"), source, budget_id, priced)])
        if hint:
            with self.api.begin() as c:
                c.execute(sa.update(job).where(job.c.id == id).values(hinted_at=sa.func.now()))
            silo = self.one(sa.select(work.c.silo).where(work.c.job_id == id)).silo
            send_hint(self.broker, id, silo)
        return id

    def status(self, job_id: str) -> str:
        return str(self.one(sa.select(job.c.status).where(job.c.id == job_id))[0])

    def one(self, statement: sa.Select[Any]) -> sa.Row[Any]:
        with self.admin.connect() as c:
            return c.execute(statement).one()

    def all(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with self.admin.connect() as c:
            return c.execute(statement).all()

    def authorised(self, job_id: str) -> int:
        return int(self.ledger(job_id).steps_authorised)

    def ledger(self, job_id: str) -> sa.Row[Any]:
        """The job's one phase and the fence of its work."""
        return self.one(
            sa.select(phase, work.c.fence)
            .join(reservation, reservation.c.id == phase.c.reservation_id)
            .join(work, work.c.job_id == reservation.c.job_id)
            .where(reservation.c.job_id == job_id)
        )

    def leftovers(self, job_id: str) -> list[str]:
        """What is still kept of a job's checkpoints: rows and blobs."""
        rows = [r.blob for r in self.all(sa.select(checkpoint.c.blob).where(checkpoint.c.job_id == job_id))]
        return rows + [str(p) for p in self.folder.rglob(f"jobs/{job_id}/checkpoints/*") if p.is_file()]

    def wait_tidied(self, job_id: str) -> None:
        """Until nothing is left of a finished job's checkpoints: that happens after its end is visible."""
        until(lambda: not self.leftovers(job_id), 60, lambda: f"left behind: {self.leftovers(job_id)}")

    def released(self, job_id: str) -> dict[str, sa.Row[Any]]:
        """The files that a job made visible, by kind."""
        rows = sa.select(release.c.kind, file).join(file, file.c.id == release.c.file_id)
        return {row.kind: row for row in self.all(rows.where(release.c.job_id == job_id))}

    def settlement(self, job_id: str) -> sa.Row[Any]:
        """The job's one settling entry."""
        return self.one(
            sa.select(entry)
            .join(reservation, reservation.c.id == entry.c.reservation_id)
            .where(reservation.c.job_id == job_id, entry.c.kind == "settle")
        )

    def wait(self, job_id: str, status: str, seconds: float = PATIENCE) -> None:
        """Until the job is in this status; a job that ends in another one fails at once."""

        def there() -> bool:
            now = self.status(job_id)
            assert now == status or now in ("queued", "running"), f"{job_id} ended as {now}"
            return now == status

        until(
            there,
            seconds,
            lambda: f"{job_id} is {self.status(job_id)}, not {status}; fence {self.ledger(job_id).fence}",
        )

    def open(self, job_id: str) -> bool:
        return self.status(job_id) in ("queued", "running")

    def start_worker(self, *, lease_seconds: int, fresh: bool = False, **more: str) -> "Worker":
        return Worker.start(self, lease_seconds, more, fresh=fresh)

    @contextmanager
    def worker(self, *, lease_seconds: int = 4, fresh: bool = False, **more: str) -> "Iterator[Worker]":
        """A worker; killed at the end if it still runs. fresh: see Worker.start."""
        started = self.start_worker(lease_seconds=lease_seconds, fresh=fresh, **more)
        try:
            yield started
        finally:
            started.kill()


@dataclass
class Worker:
    """A running worker process."""

    process: "subprocess.Popen[bytes] | Forked"
    log: Path

    @classmethod
    def start(
        cls,
        service: Service,
        lease_seconds: int,
        more: dict[str, str],
        module: str = "worker.__main__",
        *,
        fresh: bool = False,
    ) -> "Worker":
        """Forked, and so are its pool's processes. fresh: new interpreters for all of them, as in the product."""
        log = service.folder / "worker.log"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TACIT_")},
            "TACIT_DATABASE_URL": service.database.worker_url,
            "TACIT_BROKER_URL": service.broker,
            "TACIT_BLOBS": str(service.folder / "blobs"),
            "TACIT_MASTER_KEY": MASTER_KEY,
            "TACIT_MODELS": f'{{"tiny": "{service.model}"}}',
            "TACIT_LEASE_SECONDS": str(lease_seconds),
            "TACIT_RECONCILE_SECONDS": "0.5",
            "TACIT_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **more,
        }
        if not fresh:
            return cls(Forked(module, environment, log), log)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module], cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        return cls(process, log)

    def child(self) -> int | None:
        """The pool process, if there is one now."""
        try:
            pids = (PROC / str(self.process.pid) / "task" / str(self.process.pid) / "children").read_text().split()
        except OSError:
            return None
        # beside the pool process there are multiprocessing's resource tracker and a forked worker's spare
        forked = isinstance(self.process, Forked)
        pool = [int(p) for p in pids if (_name(p) == NAME if forked else b"spawn_main" in _command(p))]
        return max(pool, default=None)

    def terminate(self) -> None:
        """SIGTERM, and wait until it is gone."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=PATIENCE)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)


def until(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Wait for a condition; fail with a message."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


def _command(pid: str) -> bytes:
    return _of_process(pid, "cmdline")


def _name(pid: str) -> str:
    return _of_process(pid, "comm").decode().strip()


def _of_process(pid: str, what: str) -> bytes:
    """Nothing of one that is gone."""
    try:
        return (PROC / pid / what).read_bytes()
    except OSError:
        return b""
