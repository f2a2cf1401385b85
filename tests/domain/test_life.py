"""A job moves as one table says, in step with the ledger, and nothing outside `domain.jobs.life` moves it."""

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.access.grants import Viewer
from domain.jobs import acting, life
from domain.jobs.pauses import show_paused
from domain.jobs.releases import publish
from domain.kit.refusals import Conflict
from domain.kit.statuses import ENDED
from domain.kit.tables import api_key, job, job_event
from ledger import grants, work
from ledger.errors import AlreadySettled, LedgerError
from ledger.reserve import Priced
from ledger.tables import reservation
from ledger.tables import work as work_table
from tests.conftest import Database
from tests.ledger.worlds import World
from worker import ends, lease
from worker.errors import Refused

State = tuple[str, str | None]
HELD_UP = [("queued", "paused"), ("queued", "pausing"), ("running", "pausing")]
TO_BE_HAD = [("queued", None), ("running", None)]
ENDING = [("queued", "cancelling"), ("running", "cancelling")]
AWAITED: State = ("queued", "waiting_for_approval")
EARLY: State = ("queued", "waiting_for_silos")
STAND_OPEN: list[State] = [("validating_files", None), AWAITED, EARLY, *TO_BE_HAD, *HELD_UP, *ENDING]
OVER: list[State] = [(s, None) for s in ENDED] + [("cancelled", "rejected"), ("cancelled", "expired")]


def asked(detail: str | None, *states: State) -> dict[State, State]:
    """The status stays."""
    return {state: (state[0], detail) for state in states}


MOVED: dict[str, dict[State, State]] = {
    "waiting": {("queued", None): AWAITED},
    "invited": {("queued", None): EARLY},
    "joined": {("queued", None): ("queued", None), EARLY: ("queued", None), AWAITED: AWAITED},
    "approved": {AWAITED: ("queued", None)},
    "rejected": {AWAITED: ("cancelled", "rejected")},
    "started": {state: ("running", state[1]) for state in [*TO_BE_HAD, *ENDING]},
    "pausing": asked("pausing", *TO_BE_HAD),
    "paused": {state: ("queued", "paused") for state in [*TO_BE_HAD, ("queued", "pausing"), ("running", "pausing")]},
    "resumed": {state: ("queued", None) for state in HELD_UP},
    "resumed in hand": asked(None, *HELD_UP),
    "cancelling": asked("cancelling", *TO_BE_HAD, *HELD_UP),
    "cancelled": {state: ("cancelled", None) for state in STAND_OPEN},
    "expired": {state: ("cancelled", "expired") for state in STAND_OPEN},
    "failed": {state: ("failed", None) for state in STAND_OPEN},
    "succeeded": {state: ("succeeded", None) for state in STAND_OPEN},
}
"""All that may happen; every other pair is refused."""


def unless_refused(step: Callable[[sa.Connection, str], None]) -> Callable[[sa.Connection, str], bool]:
    def take(c: sa.Connection, id: str) -> bool:
        try:
            step(c, id)
        except AlreadySettled:
            return False
        return True

    return take


BY = {"id": "key_a", "name": "Dr Wu"}
STEPS: dict[str, Callable[[sa.Connection, str], bool]] = {
    "waiting": life.waiting,
    "invited": life.invited,
    "joined": life.joined,
    "approved": lambda c, id: life.approved(c, id, BY),
    "rejected": lambda c, id: life.rejected(c, id, BY, "r"),
    "started": unless_refused(life.started),
    "pausing": life.pausing,
    "paused": life.paused,
    "resumed": lambda c, id: life.resumed(c, id, in_hand=False),
    "resumed in hand": lambda c, id: life.resumed(c, id, in_hand=True),
    "cancelling": life.cancelling,
    "cancelled": life.cancelled,
    "expired": lambda c, id: life.expired(c, id, "not_started"),
    "failed": lambda c, id: life.failed(c, id, "code", "words"),
    "succeeded": unless_refused(life.succeeded),
}


@pytest.fixture(scope="module")
def world(module_database: Database) -> World:
    made = World(module_database)
    made.root = sa.create_engine(module_database.superuser_url)  # pooled: a story has many short transactions
    made.api = sa.create_engine(module_database.api_url)
    made.worker = sa.create_engine(module_database.worker_url)
    return made


@pytest.fixture
def connection(world: World) -> Iterator[sa.Connection]:
    """What it writes is never committed."""
    with world.root.connect() as c:
        yield c


def standing(world: World, c: sa.Connection, state: State) -> str:
    """A job that stands there, with a hint out."""
    id = f"{state[0]}-{state[1]}"
    values = {"model": "m", "method": {}, "plan": {}, "privacy": {}, "seed": 0, "hinted_at": sa.func.now()}
    values |= {"id": id, "tenant_id": world.tenant, "created_by": world.key, "status": state[0]}
    c.execute(job.insert().values(**values, status_detail=state[1]))
    return id


def row_and_events(c: sa.Connection, id: str) -> tuple[sa.Row[Any], list[str]]:
    named = sa.select(job_event.c.name).where(job_event.c.job_id == id).order_by(job_event.c.seq)
    return c.execute(sa.select(job).where(job.c.id == id)).one(), list(c.execute(named).scalars())


@pytest.mark.parametrize("step", life.MOVES)
def test_a_step_moves_as_the_table_says_or_changes_nothing(world: World, connection: sa.Connection, step: str) -> None:
    for state in [*STAND_OPEN, *OVER]:
        id = standing(world, connection, state)
        before, _ = row_and_events(connection, id)
        moved = STEPS[step](connection, id)
        after, events = row_and_events(connection, id)
        wanted = MOVED[step].get(state)
        assert moved == (wanted is not None), (state, moved)
        if wanted is None:
            assert (after, events) == (before, []), state
            continue
        assert (after.status, after.status_detail) == wanted, state
        assert events == [f"job.{step.split(maxsplit=1)[0]}"], state
        assert (after.finished_at is not None) == (after.status in ENDED)
        assert (after.started_at is not None) == (step == "started")
        assert (after.hinted_at is None) == step.startswith("resumed")
        assert (after.error is not None) == (step == "failed")


def test_a_second_attempt_is_no_event(world: World, connection: sa.Connection) -> None:
    id = standing(world, connection, ("queued", None))
    for _ in range(2):
        life.started(connection, id)
        life.paused(connection, id)
        life.resumed(connection, id, in_hand=False)
    _, events = row_and_events(connection, id)
    assert events == ["job.started", "job.paused", "job.resumed", "job.paused", "job.resumed"]


class Story:
    """One job with its ledger, and everybody who may do something to it."""

    def __init__(self, world: World, budget: str, file: str, steward: Viewer) -> None:
        self.world, self.steward, self.held = world, steward, None
        self.id, receipts = world.submit([(file, budget, [Priced(0.01, 20.0, 1)])])
        if receipts[0].waits:
            with world.api.begin() as c:
                life.waiting(c, self.id)

    held: work.Lease | None
    """What a worker believes to hold."""

    def cancel(self) -> None:
        with self.world.api.begin() as c:
            acting.cancel(c, self.world.viewer, self.id)

    def pause(self) -> None:
        with self.world.api.begin() as c:
            acting.pause(c, self.world.viewer, self.id)

    def resume(self) -> None:
        with self.world.api.begin() as c:
            acting.resume(c, self.world.viewer, self.id)

    def approve(self) -> None:
        with self.world.api.begin() as c:
            acting.approve(c, self.steward, self.id)

    def reject(self) -> None:
        with self.world.api.begin() as c:
            acting.reject(c, self.steward, self.id, "r")

    def claim(self) -> None:
        with self.world.worker.begin() as c:
            try:
                self.held = lease.claim(c, self.id, 60) or self.held
            except AlreadySettled:
                pytest.fail("the row forbids what the ledger allows")

    def let_go(self) -> None:
        if self.held:
            ends.let_go(self.world.worker, self.held)

    def drop(self) -> None:
        if self.held:
            with self.world.worker.begin() as c:
                work.drop(c, self.held)
            self.held = None

    def time_out(self) -> None:
        """The worker hangs, and may wake up later."""
        with self.world.worker.begin() as c:
            over = sa.update(work_table).where(work_table.c.job_id == self.id, work_table.c.lease_until.is_not(None))
            c.execute(over.values(lease_until=sa.func.clock_timestamp()))

    def finish(self) -> None:
        if self.held:
            with self.world.worker.begin() as c:
                publish(c, self.held, self.world.tenant, [])

    def fail(self) -> None:
        if self.held:
            with self.world.worker.begin() as c:
                ends.fail(c, self.id, self.held.fence, Refused("code", "words"))

    def expire(self) -> None:
        if self.held:
            with self.world.worker.begin() as c:
                ends.expire(c, self.id, self.held.fence)

    def reconcile(self) -> None:
        """What the reconciler does to a job that nobody works on."""
        now = self.look()
        if now.status in ENDED or now.leased:
            return
        with self.world.worker.begin() as c:
            if now.stop_requested:
                ends.cancel(c, self.id, None)
            elif now.status_detail == "pausing":
                show_paused(c, self.id)

    def look(self) -> sa.Row[Any]:
        """What the row and the ledger say."""
        leased = sa.func.coalesce(work_table.c.lease_until > sa.func.clock_timestamp(), sa.false()).label("leased")
        said = (
            sa.select(job, work_table.c.paused_at, work_table.c.stop_requested, leased, reservation)
            .join(work_table, work_table.c.job_id == job.c.id)
            .join(reservation, reservation.c.job_id == job.c.id)
            .where(job.c.id == self.id)
        )
        with self.world.root.connect() as c:
            return c.execute(said).one()

    def require_in_step(self) -> None:
        """The row says what the ledger says, and of all ends the job has one."""
        now = self.look()
        state = (now.status, now.status_detail)
        assert state in [*STAND_OPEN, *OVER]
        assert (now.status in ENDED) == (now.state != "reserved")
        with self.world.root.connect() as c:
            _, events = row_and_events(c, self.id)
        over = [name for name in events if name.removeprefix("job.") in (*ENDED, "rejected", "expired")]
        assert len(over) == (now.status in ENDED)
        if now.status not in ENDED:
            assert (state == AWAITED) == now.waits
            assert (state in ENDING) == now.stop_requested
            assert (state in HELD_UP) == (now.paused_at is not None and not now.stop_requested)


ACTS = [name for name in vars(Story) if not name.startswith(("_", "look", "require", "held"))]
OFTEN = ["claim", "claim", "claim", "pause", "resume", "approve", "approve"]  # or most stories end before they begin


@pytest.fixture(scope="module")
def new_story(world: World) -> Callable[[bool], Story]:
    """A job's beginning; true: it waits for a steward."""
    key = f"{world.key}-steward"
    values = {"id": key, "tenant_id": world.tenant, "name": "s", "prefix": "p", "mac": key.encode()}
    with world.api.begin() as c:
        c.execute(api_key.insert().values(**values, scopes=["steward", "analyst"]))
    steward = Viewer(key, world.tenant, frozenset(["steward", "analyst"]))
    budgets = {waits: world.budget("50") for waits in (False, True)}
    files = {waits: world.file(budget) for waits, budget in budgets.items()}
    with world.api.begin() as c:
        grants.set_rules(c, budgets[True], approval_above=Decimal("0.01"), queue_days=7, by=world.key, reason="r")
    return lambda waits: Story(world, budgets[waits], files[waits], steward)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(waits=st.booleans(), acts=st.lists(st.sampled_from(ACTS + OFTEN), min_size=4, max_size=12))
@example(waits=False, acts=["claim", "pause", "let_go", "pause", "resume", "pause", "drop", "reconcile", "resume"])
@example(waits=False, acts=["claim", "pause", "cancel", "time_out", "claim", "reconcile"])
@example(waits=False, acts=["claim", "cancel", "time_out", "claim", "let_go", "cancel"])
@example(waits=False, acts=["claim", "time_out", "pause", "finish", "resume"])
@example(waits=False, acts=["claim", "pause", "time_out", "claim", "reconcile", "resume", "claim", "finish", "fail"])
@example(waits=True, acts=["claim", "pause", "resume", "approve", "approve", "reject", "claim", "expire"])
@example(waits=False, acts=["claim", "pause", "let_go", "cancel", "drop", "reconcile"])
@example(waits=False, acts=["claim", "fail", "resume", "cancel"])
@example(waits=False, acts=["claim", "expire", "pause", "fail"])
@example(waits=True, acts=["reject", "approve", "claim", "cancel", "pause"])
def test_whatever_happens_a_job_stands_where_its_ledger_says(
    new_story: Callable[[bool], Story], waits: bool, acts: list[str]
) -> None:
    story = new_story(waits)
    for act in acts:
        with suppress(Conflict, LedgerError):  # refused, and rolled back
            getattr(story, act)()
        story.require_in_step()


ROOT = Path(__file__).parents[2]
ROOMS = ("api", "worker", "domain", "ledger", "cli")
WRITING = {"update", "insert", "delete"}
RAW = re.compile(
    r"\b(update(\s+only)?|insert\s+into|delete\s+from|merge\s+into|copy|truncate)\s+(public\.)?\"?job\b", re.I
)


def writes_of_job(source: str) -> list[int]:
    """The lines on which a module writes the table `job`, by SQLAlchemy or in SQL."""
    tree = ast.parse(source)
    tables, jobs, verbs = {"tables"}, set(), set(WRITING)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                known = name.asname or name.name
                if name.name == "tables":
                    tables.add(known)
                elif name.name == "job" and (node.module or "").endswith("tables"):
                    jobs.add(known)
                elif name.name in WRITING:
                    verbs.add(known)
        elif isinstance(node, ast.Import):
            tables |= {name.asname for name in node.names if name.asname and name.name.endswith(".tables")}

    def is_job(node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in jobs
            case ast.Attribute(value=ast.Name(id=of) | ast.Attribute(attr=of), attr="job"):
                return of in tables
            case ast.Subscript(value=ast.Attribute(attr="tables"), slice=ast.Constant(value="job")):
                return True
            case ast.Call(func=ast.Attribute(value=of, attr="alias")):
                return is_job(of)
        return False

    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_job(value):
                jobs.add(name)
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=of, attr=verb)) if verb in verbs and is_job(of):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr=verb) | ast.Name(id=verb), args=[of, *_]) if is_job(of):
                found += [node.lineno] if verb in verbs else []
            case ast.Constant(value=str(text)) if RAW.search(text):
                found.append(node.lineno)
    return found


PLANTED = [
    'from domain.kit.tables import job\nsa.update(job).values(status="queued")',
    "from domain.kit.tables import job as row\nrow.update().values(error=None)",
    "from domain.kit.tables import job\nfrom sqlalchemy.dialects.postgresql import insert as put\nput(job)",
    "from domain.kit.tables import job\nmine = job\nsa.delete(mine)",
    "from domain.kit import tables\nsa.update(tables.job)",
    "from domain.kit import tables as t\nt.job.insert()",
    "import domain.kit.tables\nsa.update(domain.kit.tables.job)",
    'from domain.kit.tables import metadata\nmetadata.tables["job"].update()',
    'c.execute(sa.text("UPDATE public.job SET hinted_at = NULL"))',
    'c.execute(f"""insert\n into job (id) VALUES ({id})""")',
]


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_write_is_found(source: str) -> None:
    assert writes_of_job(source)


def test_nothing_else_writes_a_job() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): writes_of_job(path.read_text()) for path in files}
    assert found.pop("domain/jobs/life.py")
    assert {path: lines for path, lines in found.items() if lines} == {}
