"""Crashes at every statement and around every commit of a job's life, as the services run it.

The points are not a list: each scenario is run once under a tracer, and what it sent is what is crashed at. Only the
training itself is pretended; it notes the steps that it ran outside the database, where no rollback reaches.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import psycopg
import safetensors.torch
import sqlalchemy as sa
import torch

import worker.attempt
import worker.lease
import worker.reconciler
import worker.training
from domain.files.binding import bind
from domain.jobs import acting
from domain.jobs.planning import Draft
from domain.jobs.releases import Result
from domain.jobs.resolving import Planned, Wanted
from domain.jobs.submit import submit
from domain.kit import tables
from domain.kit.database import make_engine
from domain.kit.ids import new_id
from domain.kit.refusals import Conflict
from domain.storage.blobs import Store, put_bytes
from domain.storage.sealing import new_seal
from dpcore.checkpoint import FORMAT, read_step
from dpcore.run import Outcome
from dpcore.terms import accounting
from dpcore.terms.mechanisms import PoissonGaussian
from dpcore.terms.program import Phase, Program
from ledger.budgets import balance
from ledger.tables import phase, reservation
from ledger.tables import work as work_table
from ledger.verify import verify_budget
from tests.conftest import Database, blob_store
from tests.ledger.worlds import World

CHUNK = 20
_PHASE = Phase(
    name="first",
    trains="lora",
    mechanism=PoissonGaussian(sample_rate=0.01, noise_multiplier=1.0),
    steps=CHUNK,
    clip_norm=1.0,
    expected_batch=10,
    learning_rate=1e-3,
)
PROGRAM = Program(method="lora", max_length=64, phases=(_PHASE, _PHASE.model_copy(update={"name": "second"})))
"""Two phases of a chunk each: every crash falls into one of them, or between them."""
Moment = Literal["before", "after"]
Victim = Literal["connection", "process"]


class Killed(BaseException):
    """The process ends here: no handler of the service may run."""


@dataclass(frozen=True)
class Point:
    """Something that a scenario sent to the database, by its place in the scenario."""

    place: int
    what: str


@dataclass(frozen=True)
class Crash:
    """The connection is lost at a point, and with `process` whoever held it."""

    point: Point
    moment: Moment
    victim: Victim

    def __str__(self) -> str:
        return f"{self.victim} killed {self.moment} {self.point.place}: {self.point.what}"


class Tracer:
    """Counts what engines send, and ends a connection at one point."""

    def __init__(self, admin: sa.Engine, engines: Sequence[sa.Engine]) -> None:
        self._admin = admin
        self.points: list[Point] = []
        self._crash: Crash | None = None
        self._listening = False
        for engine in engines:
            sa.event.listen(engine, "before_cursor_execute", self._before)
            sa.event.listen(engine, "after_cursor_execute", self._after)
            sa.event.listen(engine, "commit", self._commit)

    @contextlib.contextmanager
    def watching(self, crash: Crash | None = None) -> Iterator[None]:
        self.points, self._crash, self._listening = [], crash, True
        try:
            yield
        finally:
            self._crash, self._listening = None, False

    def _before(self, connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        if self._listening:
            self.points.append(Point(len(self.points), " ".join(statement.split())[:70]))
            if self._hit("before"):
                self._kill(connection)

    def _after(self, connection: sa.Connection, *_: object) -> None:
        if self._listening and self._hit("after"):
            self._kill(connection)

    def _commit(self, connection: sa.Connection) -> None:
        if not self._listening:
            return
        self.points.append(Point(len(self.points), "COMMIT"))
        if self._hit("before"):
            self._kill(connection)
        elif self._hit("after"):  # it did commit, but nobody hears of it
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.commit()
            self._kill(connection)
            lost = psycopg.OperationalError("server closed the connection unexpectedly")
            raise sa.exc.OperationalError("COMMIT", None, lost)

    def _hit(self, moment: Moment) -> bool:
        crash = self._crash
        return crash is not None and crash.point.place == len(self.points) - 1 and crash.moment == moment

    def _kill(self, connection: sa.Connection) -> None:
        crash, self._crash = self._crash, None
        driver = connection.connection.driver_connection
        assert driver is not None
        assert crash is not None
        with self._admin.connect() as c:
            ended = sa.select(sa.func.pg_terminate_backend(driver.info.backend_pid, 5000))
            assert c.execute(ended).scalar_one()
        if crash.victim == "process":
            raise Killed


@dataclass
class Service:
    """The API and the worker on one database, with a pretended training."""

    database: Database
    folder: Path
    noise_first: bool = False
    """The mutation: run the steps, then ask for them."""
    world: World = field(init=False)
    """Looks on through engines of its own."""
    api: sa.Engine = field(init=False)
    worker: sa.Engine = field(init=False)
    tracer: Tracer = field(init=False)
    executed: Counter[str] = field(default_factory=Counter)
    budget: str = ""
    job: str = ""
    store: Store = field(init=False)
    settings: Any = field(init=False)
    during: Callable[[int], None] = field(default=lambda step: None)
    """What happens beside the training, after so many steps."""

    def __post_init__(self) -> None:
        self.world = World(self.database)
        self.world.admin, self.world.api = make_engine(self.database.superuser_url), make_engine(self.database.api_url)
        self.api, self.worker = make_engine(self.database.api_url), make_engine(self.database.worker_url)
        self.tracer = Tracer(self.world.admin, [self.api, self.worker])
        self.store = blob_store(self.folder, self.world.admin)
        self.settings = SimpleNamespace(lease_seconds=500, max_attempts=5, job_seconds=None, silo=None)

    def close(self) -> None:
        for engine in (self.api, self.worker, self.world.api, self.world.admin):
            engine.dispose()

    def fresh(self) -> None:
        """A budget and a file for the next run."""
        self.budget, self.file = self.world.budget(), new_id("file", "-")
        rows = put_bytes(self.store, f"files/{self.file}/rows.parquet", b"rows")
        checked: dict[str, Any] = {"id": self.file, "tenant_id": self.world.tenant, "budget_id": self.budget}
        checked |= {"purpose": "fine-tune", "task": "classification", "filename": "f", "status": "processed"}
        checked |= {"declared_size": 1000, "labels": ["a", "b"], "max_length": 64, "sha256": "00" * 32}
        with self.world.api.begin() as c:
            c.execute(tables.file.insert().values(**checked, blob=rows.name, binding=bind(c, rows, checked)))

    def submit(self) -> None:
        self.job = new_id("ftjob", "-")
        orders = self.world.balance(self.budget).filter.orders
        cost = PROGRAM.cost(orders)
        wanted = Wanted("m", self.file, None, "lora", {}, {}, 1.0, None, 0, None, {})
        with self.api.begin() as c:
            draft = Draft({"type": "lora", "lora": {}}, PROGRAM, 1.0, 0.1, cost, 0)
            sources = c.execute(sa.select(tables.file).where(tables.file.c.id == self.file)).all()
            planned = Planned(wanted, tuple(sources), draft, balance(c, self.budget), None, None, None)
            submit(c, planned, self.store, job_id=self.job, viewer=self.world.viewer, check_first=True)

    def cancel(self) -> None:
        with self.api.begin() as c, contextlib.suppress(Conflict):
            acting.cancel(c, self.world.viewer, self.job)

    def attempt(self) -> None:
        with contextlib.ExitStack() as stack:
            for target, name, stand_in in (
                (worker.training, "run", self._run),
                (
                    worker.training,
                    "build",
                    lambda *_: SimpleNamespace(
                        model=torch.nn.Identity(), task=None, base=SimpleNamespace(name="m", revision="00" * 32)
                    ),
                ),
                (worker.training.Training, "rows", lambda *_: (None, None)),
                (worker.training.Training, "encoded", lambda *_: (None, None)),
                (worker.training.results, "store_adapter", self._adapter),
                (worker.attempt, "open_store", lambda *_: self.store),
                (worker.lease, "MOST_SECONDS_BETWEEN_BEATS", 1e6),
            ):
                stack.enter_context(mock.patch.object(target, name, stand_in))
            worker.attempt.attempt(self.worker, self.settings, self.job)

    def _run(
        self,
        *,
        authorise: Callable[[int, int], int],
        save: Callable[[bytes], None],
        checkpoint: bytes | None,
        **_: object,
    ) -> Outcome:
        step, lost = 0 if checkpoint is None else read_step(checkpoint), 0
        while step < PROGRAM.steps:
            if self.noise_first:
                self.executed[self.job] += CHUNK
                granted = authorise(step // CHUNK, CHUNK)
            else:
                granted = authorise(step // CHUNK, CHUNK)
                self.executed[self.job] += granted
            lost += CHUNK - granted  # what is used up in the first phase leaves the second its own
            step += CHUNK
            save(checkpoint_at(step))
            self.during(step)
        return Outcome(step - lost, "used_up" if lost else "finished")

    def _adapter(self, _store: object, lease: Any, *_: object) -> Result:
        return Result("adapter", "adapter.zip", 1, "00" * 32, new_seal(bytes(32), f"{lease.job_id}/{lease.fence}", 1))

    def recover(self) -> None:
        """As time passes: leases run out, the reconciler looks, another worker is sent the job."""
        looks = 4
        while looks and self._open():
            looks -= 1
            with self.world.admin.begin() as c:
                past = sa.func.clock_timestamp() - sa.literal_column("interval '1 s'")
                held = sa.update(work_table).where(work_table.c.job_id == self.job)
                c.execute(held.where(work_table.c.lease_until.is_not(None)).values(lease_until=past))
            with mock.patch.object(worker.reconciler, "_hint"):
                worker.reconciler.reconcile(self.worker, self.store, self.settings)
            self.attempt()

    def _open(self) -> bool:
        """Whether the job, or anything that it reserved, has not ended."""
        unsettled = sa.exists().where(reservation.c.job_id == self.job, reservation.c.state == "reserved")
        with self.world.admin.connect() as c:
            waiting = tables.job.c.status.in_(["queued", "running"])
            return c.execute(sa.select(sa.or_(waiting, unsettled)).where(tables.job.c.id == self.job)).scalar_one()


def checkpoint_at(step: int) -> bytes:
    """What the loop would keep, without weights."""
    at = min(step // CHUNK, len(PROGRAM.phases) - 1)
    header = {"format": FORMAT, "phase": str(at), "before": str(at * CHUNK), "step": str(step - at * CHUNK)}
    header["program"] = PROGRAM.model_dump_json()
    return safetensors.torch.save({}, metadata=header)


def _success(service: Service) -> None:
    service.submit()
    service.attempt()


def _cancelled_in_the_queue(service: Service) -> None:
    service.submit()
    service.cancel()


def _cancelled_at_work(service: Service) -> None:
    def cancel(step: int) -> None:
        with contextlib.suppress(Killed, sa.exc.DBAPIError):  # the API's trouble is not the worker's
            service.cancel()

    service.submit()
    service.during = cancel
    service.attempt()


def _failure(service: Service) -> None:
    def fail(step: int) -> None:
        raise RuntimeError("something that the data did")

    service.submit()
    service.during = fail
    service.attempt()


SCENARIOS: dict[str, tuple[Callable[[Service], None], str, int]] = {
    "success": (_success, "succeeded", PROGRAM.steps),
    "cancelled in the queue": (_cancelled_in_the_queue, "cancelled", 0),
    "cancelled at work": (_cancelled_at_work, "cancelled", CHUNK),
    "failure": (_failure, "failed", CHUNK),
}
"""How each ends when nothing crashes, and after how many steps."""


@dataclass
class Row:
    """What a scenario's crashes came to."""

    scenario: str
    points: int = 0
    crashes: int = 0
    overspends: int = 0
    lost_charges: int = 0
    stuck: int = 0
    half_published: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{n} {status}" for status, n in sorted(self.ends.items()))
        return (
            f"{self.scenario:24}{self.points:7}{self.crashes:9}{self.overspends:12}{self.lost_charges:14}"
            f"{self.stuck:7}{self.half_published:16}   {ends}"
        )


HEADER = f"{'scenario':24}{'points':>7}{'crashes':>9}{'overspends':>12}{'lost charges':>14}{'stuck':>7}{'half published':>16}   ends"


def run_matrix(service: Service, scenarios: Sequence[str] = tuple(SCENARIOS), every: int = 1) -> list[Row]:
    """Each `every`-th crash of each scenario, over all points and kinds."""
    rows = []
    for name in scenarios:
        scenario, end, steps = SCENARIOS[name]
        service.fresh()
        service.during = lambda step: None
        with service.tracer.watching():
            scenario(service)
        points = service.tracer.points
        row = Row(name, len(points))
        _judge(service, row, "no crash")
        if not service.noise_first:
            assert (set(row.ends), service.executed[service.job]) == ({end}, steps)
        crashes = [
            Crash(point, moment, victim)
            for point in points
            for moment in ("before", "after")
            for victim in ("connection", "process")
        ]
        for crash in crashes[::every]:
            service.fresh()
            _live_through(service, scenario, crash)
            row.crashes += 1
            _judge(service, row, str(crash))
        rows.append(row)
    return rows


def _live_through(service: Service, scenario: Callable[[Service], None], crash: Crash) -> None:
    service.during = lambda step: None
    with service.tracer.watching(crash), contextlib.suppress(Killed, sa.exc.DBAPIError):
        scenario(service)
    # The client heard nothing, or an error: it asks again.
    with service.world.admin.connect() as c:
        known = c.execute(sa.select(tables.job.c.id).where(tables.job.c.id == service.job)).first()
    if known is None:
        service.submit()
    if scenario is not _success and scenario is not _failure:
        service.cancel()
    service.recover()
    service.during = lambda step: None


def _judge(service: Service, row: Row, crash: str) -> None:
    """Count what is wrong with the budget of this run."""
    with service.world.api.connect() as c:
        held = balance(c, service.budget)
        booked = c.execute(
            sa.select(
                sa.func.sum(phase.c.steps_authorised).label("steps_authorised"),
                sa.func.max(phase.c.step_cost).label("step_cost"),  # the same in both
                reservation.c.state,
                tables.job.c.status,
            )
            .join(reservation, reservation.c.id == phase.c.reservation_id)
            .join(tables.job, tables.job.c.id == reservation.c.job_id)
            .where(reservation.c.budget_id == service.budget)
            .group_by(reservation.c.state, tables.job.c.status)
        ).one()
        published = c.execute(
            sa.select(sa.func.count()).select_from(tables.release).where(tables.release.c.job_id == service.job)
        ).scalar_one()
        findings = verify_budget(c, service.budget)
    ran = service.executed[service.job]
    fits = accounting.fits(held.cap, held.spent, held.reserved)
    charged = all(s >= ran * k for s, k in zip(held.spent, booked.step_cost, strict=True))
    row.ends[booked.status] += 1
    for count, wrong in (
        ("overspends", bool(findings) or not fits or booked.steps_authorised > PROGRAM.steps),
        ("lost_charges", ran > booked.steps_authorised or not charged),
        ("stuck", booked.state != "settled" or any(held.reserved) or booked.status in ("queued", "running")),
        ("half_published", published != (2 if booked.status == "succeeded" else 0)),
    ):
        if wrong:
            setattr(row, count, getattr(row, count) + 1)
            row.wrong.append(f"{count}: {crash} {findings}")
