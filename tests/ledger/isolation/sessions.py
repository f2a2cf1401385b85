"""Two sessions, each with one act in one transaction, and the orders in which they may come.

Nothing here waits for time: an act that blocks is seen to block in the database's own view of who waits for whom.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import sqlalchemy as sa

from ledger.errors import LedgerError
from tests.conftest import Database

Level = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
Login = Literal["root", "admin", "api", "worker"]
LOOKS = 1_000_000
"""At who waits for whom, before an act counts as hanging: far more than any lock takes to show."""
MOST_STATEMENTS = 12
"""Of a decision."""
NOTHING = "-"
"""What a client learns of an act that was rolled back."""


class Names:
    """The ids of one world: a prefix of its own before every name."""

    def __init__(self, world: str) -> None:
        self.world = world

    def __getitem__(self, name: str) -> str:
        return f"{self.world}-{name}"


@dataclass(frozen=True)
class Act:
    """What one session does in one transaction."""

    name: str
    login: Login
    run: Callable[[sa.Connection, Names], object]
    """Answers what its client learns; only its text counts."""


def sql(name: str, login: Login, *statements: str) -> Act:
    """Statements one after the other; `:name` is an id of the world. The client learns how many rows the last met."""
    prepared = [(sa.text(text), re.findall(r"(?<![:\w]):(\w+)", text)) for text in statements]

    def run(connection: sa.Connection, names: Names) -> object:
        met = 0
        for statement, wanted in prepared:
            met = connection.execute(statement, {name: names[name] for name in wanted}).rowcount
        return met

    return Act(name, login, run)


class Site:
    """A database, its logins, and two threads for what may block."""

    def __init__(self, database: Database) -> None:
        d = database
        urls: dict[Login, str] = {
            "root": d.superuser_url,
            "admin": d.admin_url,
            "api": d.api_url,
            "worker": d.worker_url,
        }
        self.engines = {login: sa.create_engine(url, pool_size=3) for login, url in urls.items()}
        self.threads = ThreadPoolExecutor(2)
        self.root = self.engines["root"].connect().execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        self.root.close()
        self.threads.shutdown()
        for engine in self.engines.values():
            engine.dispose()

    def done(self, future: "Future[None]", pid: int, blocker: int) -> bool:
        """True once a thread is done, False once its session waits for the other's locks."""
        for _ in range(LOOKS):
            if future.done():
                return True
            if self.root.execute(_WAITS, {"pid": pid, "blocker": blocker}).scalar_one():
                return False
        raise AssertionError(f"session {pid} neither ends nor waits for {blocker}")


class Session:
    """One act in a transaction of its own, whose first statement takes the snapshot."""

    def __init__(self, site: Site, act: Act, names: Names, level: Level) -> None:
        self._site, self._act, self._names = site, act, names
        self.answer = NOTHING
        self.sent = 0
        """Statements of the act so far."""
        self._connection = site.engines[act.login].connect().execution_options(isolation_level=level)
        driver = self._connection.connection.driver_connection
        assert driver is not None
        self._pid: int = driver.info.backend_pid
        self._transaction: sa.RootTransaction | None = None
        self._interruption: tuple[int, Callable[[], None]] | None = None
        self._future: Future[None] | None = None

    @property
    def begun(self) -> bool:
        return self._transaction is not None

    def begin(self) -> None:
        self._transaction = self._connection.begin()
        self._connection.execute(_SNAPSHOT, {"world": self._names.world})
        sa.event.listen(self._connection, "before_cursor_execute", self._before)

    def interrupt(self, place: int, by: Callable[[], None]) -> None:
        """Something to happen before the act's statement of that number."""
        self._interruption = place, by

    def act(self) -> None:
        try:
            self.answer = str(self._act.run(self._connection, self._names))
        except (LedgerError, sa.exc.SQLAlchemyError) as error:
            self._fail(error)

    def send(self, blocker: "Session") -> bool:
        """Act in a thread; answers whether that is done, or False once it waits for `blocker`."""
        if not self.begun:
            self.begin()
        self._future = self._site.threads.submit(self.act)
        return self._site.done(self._future, self._pid, blocker._pid)

    def send_end(self, blocker: "Session", *, commit: bool = True) -> bool:
        """End in a thread, like `send`: what is checked at commit may wait for locks too."""
        self._wait()
        self._future = self._site.threads.submit(self._end, commit)
        return self._site.done(self._future, self._pid, blocker._pid)

    def end(self, *, commit: bool = True) -> None:
        """Wait for the act, then commit or roll back; nothing is left to do when it failed or has ended."""
        self._wait()
        self._end(commit)

    def whole(self) -> None:
        self.begin()
        self.act()
        self.end()

    def close(self) -> None:
        if self.begun:
            sa.event.remove(self._connection, "before_cursor_execute", self._before)
        self._connection.close()

    def _wait(self) -> None:
        if self._future is not None:
            self._future.result()

    def _end(self, commit: bool) -> None:
        assert self._transaction is not None
        if not self._transaction.is_active:
            return
        if not commit:
            self._transaction.rollback()
            self.answer = NOTHING
            return
        try:
            self._transaction.commit()
        except sa.exc.DBAPIError as error:
            self._fail(error)

    def _before(self, *_: object) -> None:
        place, self.sent = self.sent, self.sent + 1
        if self._interruption is not None and self._interruption[0] == place:
            self._interruption[1]()

    def _fail(self, error: Exception) -> None:
        assert self._transaction is not None
        if self._transaction.is_active:
            self._transaction.rollback()
        self.answer = _named(error)


def _named(error: Exception) -> str:
    """A refusal of the ledger by its name, one of the database by its SQLSTATE."""
    if isinstance(error, sa.exc.DBAPIError):
        return str(getattr(error.orig, "sqlstate", None) or type(error.orig).__name__)
    return type(error).__name__


# Interleavings of a decision with another act.


def before(decision: Session, other: Session) -> None:
    other.whole()
    decision.whole()


def after(decision: Session, other: Session) -> None:
    decision.whole()
    other.whole()


def held(decision: Session, other: Session, *, commit: bool) -> None:
    """The other act is done and not committed when the decision, whose snapshot is older, is sent."""
    decision.begin()
    other.begin()
    other.act()
    decision.send(other)
    other.send_end(decision, commit=commit)
    decision.end()
    other.end()


def during(decision: Session, other: Session, *, commit: bool) -> None:
    """The other act is sent when the decision is made and not committed."""
    decision.begin()
    decision.act()
    if other.send(decision):
        other.send_end(decision)
    decision.end(commit=commit)
    other.end()


def between(decision: Session, other: Session, *, place: int) -> None:
    """The other act comes after the decision's snapshot, before its statement of that number."""

    def come() -> None:
        if other.send(decision):
            other.send_end(decision)

    decision.begin()
    decision.interrupt(place, come)
    decision.act()
    decision.end()
    if other.begun:
        other.end()
    else:  # the decision ended before that statement
        other.whole()


@dataclass(frozen=True)
class Interleaving:
    name: str
    run: Callable[[Session, Session], None]
    place: int = 0
    """Of the other act among the decision's statements."""
    rolls_back: Literal["decision", "other"] | None = None


def interleavings() -> Iterator[Interleaving]:
    yield Interleaving("before", before)
    yield Interleaving("held, committed", partial(held, commit=True))
    yield Interleaving("held, rolled back", partial(held, commit=False), rolls_back="other")
    yield Interleaving("during, committed", partial(during, commit=True))
    yield Interleaving("during, rolled back", partial(during, commit=False), rolls_back="decision")
    yield Interleaving("after", after)
    for place in range(MOST_STATEMENTS):
        yield Interleaving(f"between {place}", partial(between, place=place), place)


_SNAPSHOT = sa.text("SELECT count(*) FROM ledger.phase WHERE reservation_id = :world")
_WAITS = sa.text("SELECT :blocker = ANY (pg_blocking_pids(:pid))")
