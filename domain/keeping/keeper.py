"""The keeper of the ledger's memory: compares every witness with the database and tells it of new heads, gives up jobs
whose time is over, and verifies every budget once a day.

It runs in the API's process, which alone has the signing key. What it finds wrong it freezes, in the open. Each of its
duties fails by itself, and whoever asks is told when it last did them.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.dialects.postgresql import insert

from domain.jobs.expiry import end_expired
from domain.keeping.retention import forget_old
from domain.keeping.witness_store import WitnessStore
from domain.kit.logs import describe, type_name
from domain.kit.settings import ApiSettings, secret_bytes
from domain.kit.tables import keeper_watch
from ledger import policy
from ledger.errors import LedgerError
from ledger.tables import budget
from ledger.verify import Finding, verify_budget
from ledger.witness import Place
from ledger.witness_file import WitnessFile
from ledger.witnesses import Witnesses

SECONDS = 5.0
"""Between two turns; a submitted job's charge is witnessed at once."""
TIDY = 3600.0
"""Seconds between two looks for what need not be kept."""
AGAIN = 60.0
"""Seconds after which a seldom duty that failed is tried again."""
LATE = 60.0
"""Seconds without a turn, or without a word to a witness, after which something is wrong."""
NOTE = 15.0
"""Seconds between two notes in the database that turns are made."""
PARTING = 20.0
"""Seconds that a thread has to end: a verification under way goes no further than its budget."""
Word = Literal["ok", "warning", "failed"]
logger = logging.getLogger(__name__)


def signing_key(settings: ApiSettings) -> Ed25519PrivateKey:
    """The service's key for receipts and the witness."""
    return Ed25519PrivateKey.from_private_bytes(secret_bytes(settings.signing_key)[:32])


def open_witnesses(engine: sa.Engine, settings: ApiSettings) -> Witnesses:
    """The witnesses that the settings name. Raises blobs.BadStore."""
    places: list[Place] = []
    if settings.witness is not None:
        places.append(WitnessFile(settings.witness))
    if settings.second_witness is not None:
        places.append(WitnessStore(settings.second_witness, settings.blob_options))
    return Witnesses(engine, signing_key(settings), settings.policy_key, places, settings.earlier_keys)


@dataclass
class Duty:
    """Something that is done again and again."""

    name: str
    act: Callable[[], object]
    every: float = 0.0
    """Seconds between two times; 0: in each turn."""
    due: float = 0.0
    finished: float | None = None
    """When it last succeeded, by the monotonic clock."""
    fault: str | None = None
    """What kind of error the last time ended with."""


@dataclass
class Round:
    """The duties of one thread, in their order."""

    name: str
    duties: list[Duty]
    thread: threading.Thread | None = None
    turned: float = field(default_factory=time.monotonic)
    """When the last turn ended, by the monotonic clock."""


class Keeper:
    """Three threads, so that neither a store that hangs nor a long history keeps the witness waiting."""

    def __init__(self, engine: sa.Engine, settings: ApiSettings) -> None:
        self._engine, self._settings = engine, settings
        self._witnesses = open_witnesses(engine, settings)
        self._end, self._began, self._noted = threading.Event(), time.monotonic(), 0.0
        self._witness = Duty("witness", self._look_near)
        self._second = Duty("second witness", self._look_far)
        self._verification = Duty("verification", self._verify, settings.verify_hours * 3600)
        expiry = Duty("expiry", lambda: end_expired(engine))
        tidy = Duty("tidy", lambda: forget_old(engine, settings.event_days), TIDY)
        self._main = Round("keeper", [self._witness, expiry, tidy])
        self._rounds = [self._main, Round("second witness", [self._second]), Round("verifier", [self._verification])]

    def start(self) -> None:
        """Compare and freeze as `begin`, then go on in threads."""
        self.begin()
        for one in self._rounds:
            one.thread = threading.Thread(target=self._run, args=[one], name=one.name, daemon=True)
            one.thread.start()

    def begin(self) -> None:
        """Compare every line of the witnesses, and freeze what the database lacks.

        Raises ledger.witness.BrokenWitness for one that was tampered with, is signed by another key or belongs to
        another database; OSError where one on this machine cannot be read.
        """
        self._witnesses.begin()
        self._note("turn", {})

    def stop(self) -> None:
        """Ends the threads after a last word to the witnesses."""
        self._end.set()
        for one in self._rounds:
            if one.thread is not None:
                one.thread.join(PARTING)
        self.tell_witness()
        self._attempt(self._second)

    def tell_witness(self) -> None:
        """Compare and bring what is new to the witness on this machine. Raises nothing: the next turn tries again."""
        self._attempt(self._witness)

    def turn(self) -> None:
        """All duties of the keeper's own thread that are due."""
        self._turn(self._main)

    @property
    def word(self) -> Word:
        """How the keeper does: failed without a turn for a minute, a warning while the verification is overdue."""
        alive = all(one.thread is not None and one.thread.is_alive() for one in self._rounds)
        if not alive or self.age > LATE:
            return "failed"
        return "warning" if self.verified_age > 2 * self._verification.every else "ok"

    @property
    def witness_word(self) -> Word:
        """How the witnesses do: failed where none holds what is known, a warning where one was not told for a minute,
        or there is none."""
        told = [book.told_at for book in self._witnesses.books]
        if told and all(at is None for at in told):
            return "failed"
        late = time.monotonic() - LATE
        return "ok" if told and all(at is not None and at > late for at in told) else "warning"

    @property
    def age(self) -> float:
        """Seconds since the last turn ended."""
        return time.monotonic() - self._main.turned

    @property
    def verified_age(self) -> float:
        """Seconds since every budget was last verified; before the first time, since this process began."""
        return time.monotonic() - (self._verification.finished or self._began)

    def _run(self, one: Round) -> None:
        while not self._end.wait(SECONDS):
            self._turn(one)

    def _turn(self, one: Round) -> None:
        for duty in one.duties:
            if time.monotonic() >= duty.due:
                self._attempt(duty)
        one.turned = time.monotonic()
        if one is self._main and one.turned > self._noted + NOTE:
            self._noted = one.turned
            failing = {duty.name: duty.fault for r in self._rounds for duty in r.duties if duty.fault is not None}
            self._attempt(Duty("note", lambda: self._note("turn", {"failing": failing})))

    def _attempt(self, duty: Duty) -> None:
        try:
            duty.act()
        except Exception as error:  # noqa: BLE001  whatever it is, the others go on, and so does this one the next time
            duty.fault = _kind(error)
            duty.due = time.monotonic() + min(duty.every, AGAIN)
            logger.warning("the keeper's duty %r failed: %s", duty.name, describe(error))
        else:
            duty.fault, duty.finished = None, time.monotonic()
            duty.due = duty.finished + duty.every

    def _look_near(self) -> None:
        for book in self._witnesses.books:
            if book.place.near:
                self._witnesses.look(book)

    def _look_far(self) -> None:
        for book in self._witnesses.books:
            if not book.place.near:
                self._witnesses.look(book)

    def _verify(self) -> None:
        found = verify_all(self._engine, self._settings.policy_key, self._end)
        if not self._end.is_set():
            self._note("verification", {"findings": len(found)})

    def _note(self, duty: str, detail: dict[str, object]) -> None:
        values = {"finished_at": sa.func.clock_timestamp(), "detail": detail}
        with self._engine.begin() as connection:
            said = insert(keeper_watch).values(duty=duty, **values)
            connection.execute(said.on_conflict_do_update(index_elements=["duty"], set_=values))


def verify(engine: sa.Engine, budget_id: str, policy_key: str | None) -> list[Finding]:
    """Verify one budget in one snapshot, so that jobs may go on meanwhile. What cannot even be read is a finding; a
    database that is away is none, and raises."""
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
            return verify_budget(connection, budget_id, policy_key)
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  whatever the row did to those who read it
        logger.error("budget %s cannot be verified: %s", budget_id, describe(error))
        return [Finding(budget_id, None, f"its rows cannot be read as a ledger ({type_name(error)})")]


def verify_all(engine: sa.Engine, policy_key: str | None, end: threading.Event | None = None) -> list[Finding]:
    """Verify every budget; one with findings is frozen until somebody has looked. `end`: set when time is over."""
    with engine.connect() as connection:
        budgets = connection.execute(sa.select(budget.c.id, budget.c.frozen_reason).order_by(budget.c.id)).all()
    found: list[Finding] = []
    for row in budgets:
        if end is not None and end.is_set():
            break
        problems = verify(engine, row.id, policy_key)
        found += problems
        if problems and row.frozen_reason is None:
            _freeze(engine, row.id, f"verification failed: {problems[0].what}")
    return found


def _freeze(engine: sa.Engine, budget_id: str, reason: str) -> None:
    try:
        with engine.begin() as connection:
            policy.freeze(connection, budget_id, reason)
    except sa.exc.OperationalError:
        raise
    except (sa.exc.DatabaseError, LedgerError) as error:  # a row so broken that the database lets nobody change it
        logger.error("budget %s cannot be frozen: %s; %s", budget_id, reason, describe(error))
    else:
        logger.error("budget %s is frozen: %s", budget_id, reason)


def _kind(error: Exception) -> str:
    """The type of an error, and of one of the operating system what it says: never a message, which may quote a row."""
    said = error.strerror if isinstance(error, OSError) else None
    return type(error).__name__ + (f": {said}" if said else "")
