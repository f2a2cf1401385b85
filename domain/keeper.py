"""The keeper of the ledger's memory: tells the witness of every new head, gives up jobs whose time is over, and
verifies every budget once a day.

It runs in the API's process, which alone has the signing key. What it finds wrong it freezes, in the open.
"""

import logging
import threading
import time

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.expiry import end_expired
from domain.retention import forget_old
from domain.settings import ApiSettings, secret_bytes
from ledger import policy, witness
from ledger.tables import budget
from ledger.verify import Finding, verify_budget

SECONDS = 5.0
"""Between two looks for new heads; a submitted job's charge is witnessed at once."""
TIDY = 3600.0
"""Seconds between two looks for what need not be kept."""
logger = logging.getLogger(__name__)


def signing_key(settings: ApiSettings) -> Ed25519PrivateKey:
    """The service's key for receipts and the witness."""
    return Ed25519PrivateKey.from_private_bytes(secret_bytes(settings.signing_key)[:32])


class Keeper:
    """A thread; `start` first freezes what stands behind the witness."""

    def __init__(self, engine: sa.Engine, settings: ApiSettings) -> None:
        self._engine, self._settings = engine, settings
        self._key = signing_key(settings)
        self._known: dict[str, witness.Head] = {}
        self._writing, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Raises ledger.witness.BrokenWitness when the witness file was tampered with."""
        if self._settings.witness is not None:
            seen = witness.read(self._settings.witness, self._key.public_key())
            with self._engine.begin() as connection:
                for budget_id, reason in witness.freeze_behind(connection, seen).items():
                    logger.error("budget %s is frozen: %s", budget_id, reason)
            self._known = seen
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after a last word to the witness."""
        self._end.set()
        self._thread.join()

    def tell_witness(self) -> None:
        """Bring every head that the witness does not know to its file."""
        if self._settings.witness is None:
            return
        with self._writing:
            with self._engine.connect() as connection:
                new = witness.heads(connection, self._known)
            witness.append(self._settings.witness, self._key, new)
            self._known |= {head.budget_id: head for head in new}

    def _run(self) -> None:
        verified = tidied = 0.0
        while not self._end.wait(SECONDS):
            try:
                self.tell_witness()
                end_expired(self._engine)
                if time.monotonic() > tidied + TIDY or not tidied:
                    forget_old(self._engine, self._settings.event_days)
                    tidied = time.monotonic()
                if time.monotonic() - verified > self._settings.verify_hours * 3600 or not verified:
                    verify_all(self._engine, self._settings.policy_key)
                    verified = time.monotonic()
            except (sa.exc.SQLAlchemyError, OSError) as error:
                logger.warning("the keeper's look failed: %s", type(error).__name__)
        try:
            self.tell_witness()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            logger.warning("the witness was not told of the last heads: %s", type(error).__name__)


def verify(engine: sa.Engine, budget_id: str, policy_key: str | None) -> list[Finding]:
    """Verify one budget in one snapshot, so that jobs may go on meanwhile."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        return verify_budget(connection, budget_id, policy_key)


def verify_all(engine: sa.Engine, policy_key: str | None) -> list[Finding]:
    """Verify every budget; one with findings is frozen until somebody has looked."""
    with engine.connect() as connection:
        budgets = connection.execute(sa.select(budget.c.id, budget.c.frozen_reason).order_by(budget.c.id)).all()
    found: list[Finding] = []
    for row in budgets:
        problems = verify(engine, row.id, policy_key)
        found += problems
        if problems and row.frozen_reason is None:
            reason = f"verification failed: {problems[0].what}"
            with engine.begin() as connection:
                policy.freeze(connection, row.id, reason)
            logger.error("budget %s is frozen: %s", row.id, reason)
    return found
