"""All witnesses of one database: compared with it before each word to them, and what it lacks is frozen."""

import errno
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy.dialects.postgresql import insert

from ledger import chains, policy
from ledger.chains import KnownHeads, Stock
from ledger.errors import LedgerError
from ledger.tables import lost_budget
from ledger.witness import BrokenWitness, ForeignWitness, Head, Origin, Place, WitnessLine, opened, sealed

UNCONFIRMED = "nothing"
"""In place of a head: what a budget was frozen for when the witness was gone."""
TRIES = 20
"""Times that somebody else may come first with a word to a witness that cannot be locked."""
_GONE = (
    "the witness is gone, so nothing confirms that no charge is missing: put its newest copy back and start the "
    "service again, or compare the ledger with the receipts of clients; then the operator thaws the budget"
)
logger = logging.getLogger(__name__)


@dataclass
class Book:
    """One witness, and what this process knows to be in it."""

    place: Place
    told: dict[str, Head] = field(default_factory=dict)
    """The furthest head of each budget that it holds and the database too."""
    thaws: dict[str, Head] = field(default_factory=dict)
    """The newest superseding line of each budget."""
    bound: bool = False
    """Whether it names its database."""
    opened: bool = False
    """Whether all of it was read once."""
    new: bool = False
    """Whether it has to be given everything that is known, not only what follows."""
    told_at: float | None = None
    """When it held all that is known, by the monotonic clock; None: it does not."""
    began: float = 0.0
    """The newest look."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Examined:
    """What is wrong between the witnesses and the database."""

    disputed: dict[str, str]
    """Budgets and why they are frozen, or should be."""
    lost: list[str]
    """Budgets that the database does not know and the operator has not accepted."""
    unheard: int
    """Budgets that have gone on without a witness."""
    empty: list[str]
    """Witnesses that hold nothing."""
    budgets: int


class Witnesses:
    """The first of the places is the one that must not be missing at start."""

    def __init__(
        self,
        engine: sa.Engine,
        key: Ed25519PrivateKey,
        policy_key: str | None,
        places: Sequence[Place],
        earlier: Sequence[str] = (),
    ) -> None:
        """earlier: public keys (hexadecimal) that this one took the place of; their lines count as its own."""
        self.books = [Book(place) for place in places]
        self._engine, self._key, self._policy_key = engine, key, policy_key
        known = [Ed25519PublicKey.from_public_bytes(bytes.fromhex(one)) for one in earlier]
        self._public_keys = (key.public_key(), *known)
        self._known, self._comparing = KnownHeads(), threading.Lock()
        self._database: str | None = None
        self._gone = False
        self._unconfirmed = set[str]()
        self._held_back = set[str]()

    def begin(self) -> None:
        """At start: compare every line of every witness with the database, then tell each what it does not know.

        Raises BrokenWitness, and OSError where a witness on this machine is there but cannot be read. One elsewhere
        that cannot be reached is read as soon as it can be.
        """
        for book in self.books:
            try:
                with book.lock, book.place.shared():
                    self._read(book)
            except OSError as error:
                if book.place.near:
                    raise
                logger.error("the witness in %s cannot be read: %s", book.place.name, error)
        for book in self.books:
            try:
                self.look(book)
            except OSError as error:
                logger.error("the witness in %s was not told: %s", book.place.name, error)

    def look(self, book: Book) -> None:
        """Read what others wrote, compare, freeze, then tell. A look that another thread began since this call will do.

        Raises OSError or BrokenWitness, after the comparison with what is known already; SQLAlchemyError.
        """
        asked = time.monotonic()
        with book.lock:
            if book.began > asked:
                return
            book.began = time.monotonic()
            with book.place.locked():
                for _ in range(TRIES):
                    if self._turn(book):
                        return
                raise OSError(errno.EAGAIN, "others write to the witness all the time", book.place.name)

    def examine(self) -> Examined:
        """Compare without a word to anybody. Raises as `begin`."""
        for book in self.books:
            with book.place.shared():
                self._read(book)
        with self._engine.connect() as connection:
            stock = chains.take_stock(connection, self._known)
            lost = chains.unaccepted_losses(connection, self._known)
        disputed = {
            id: chains.reason(dispute, stock.heads[id])
            for id, dispute in self._known.disputed.items()
            if id in stock.heads and chains.accepted(dispute, stock.freezes.get(id), self._policy_key) is None
        }
        unheard = [id for id, head in stock.heads.items() if any(book.told.get(id) != head for book in self.books)]
        empty = [book.place.name for book in self.books if book.new]
        return Examined(disputed, lost, len(unheard), empty, len(stock.heads))

    def _turn(self, book: Book) -> bool:
        """False when another process wrote to the witness between the comparison and the word to it."""
        fault: OSError | BrokenWitness | None = None
        try:
            self._read(book)
        except (OSError, BrokenWitness) as error:
            fault = error
        if self._gone and book is self.books[0]:
            self._note_unconfirmed()
        lines = self._settle(book)
        if fault is not None:
            raise fault
        if lines and not book.place.append([sealed(self._key, line) for line in lines]):
            return False
        for line in lines:
            if isinstance(line, Head):
                book.told[line.budget_id] = line
                if line.supersedes:
                    book.thaws[line.budget_id] = line
        book.bound, book.new, book.told_at = True, False, time.monotonic()
        return True

    def _read(self, book: Book) -> None:
        place = book.place
        if not place.intact():
            logger.error("the witness in %s was shortened, replaced or removed: it is told all anew", place.name)
            book.told.clear()
            book.thaws.clear()
            book.bound, book.new, book.told_at = False, True, None
        for batch in place.read():
            lines = [opened(self._public_keys, kept, place.name) for kept in batch]
            with self._comparing, self._engine.connect() as connection:
                self._require_same(
                    chains.identity(connection), [line for line in lines if isinstance(line, Origin)], place.name
                )
                heads = [line for line in lines if isinstance(line, Head)]
                said = chains.freezes(connection)
                good = chains.take_in(connection, self._known, heads, book.thaws, said)
            book.bound = book.bound or len(heads) < len(lines)
            for head in good:
                if head.budget_id not in book.told or head.seq >= book.told[head.budget_id].seq:
                    book.told[head.budget_id] = head
            book.opened = True
            self._gone = self._gone and book is not self.books[0]  # another service began it meanwhile
        if not book.opened:
            book.opened = book.new = True
            self._gone = self._gone or book is self.books[0]

    def _require_same(self, found: str, origins: Sequence[Origin], where: str) -> None:
        self._database = self._database or found
        if found != self._database:
            raise ForeignWitness("another database has taken the place of the one that this service began with")
        if any(origin.database_id != found for origin in origins):
            raise ForeignWitness(
                f"the witness in {where} belongs to another database: name another place for this one (TACIT_WITNESS, "
                "TACIT_SECOND_WITNESS), or restore the database that it belongs to"
            )

    def _settle(self, book: Book) -> list[WitnessLine]:
        """Freeze or record everything that the database lacks; answers what the book does not know."""
        with self._comparing:
            for _ in range(2):  # once more after a freeze, so that the witness hears of it at once
                with self._engine.connect() as connection:
                    seen = chains.look(connection)
                    self._require_same(seen.database, (), "")
                    stock = chains.take_stock(connection, self._known, seen)
                self._held_back.clear()
                self._record_losses()
                if not (self._freeze_disputed(stock) | self._freeze_unconfirmed(stock)):
                    break
            return self._unsaid(book, stock)

    def _unsaid(self, book: Book, stock: Stock) -> list[WitnessLine]:
        known, lines = self._known, list[WitnessLine]()
        if not book.bound and self._database is not None:
            lines.append(Origin(self._database))
        lines += [replace(thaw, supersedes=True) for id, thaw in known.superseded.items() if book.thaws.get(id) != thaw]
        if book.new:
            lines += [head for dispute in known.disputed.values() for head in dispute.heads]
            lines += known.lost.values()
        # What could not be frozen must not look as if the witness had agreed to it.
        heads = (head for id, head in stock.heads.items() if id not in self._held_back)
        return [*lines, *(head for head in heads if book.told.get(head.budget_id) != head)]

    def _freeze_disputed(self, stock: Stock) -> bool:
        froze = False
        for id, dispute in list(self._known.disputed.items()):
            if id not in stock.heads:
                continue
            thaw = chains.accepted(dispute, stock.freezes.get(id), self._policy_key)
            if thaw is not None:
                self._known.superseded[id] = thaw
                del self._known.disputed[id]
            elif id not in stock.frozen:
                name = dispute.head.name
                if self._freeze(id, chains.reason(dispute, stock.heads[id]), name):
                    dispute.frozen_for[name] = dispute.head
                    froze = True
        return froze

    def _freeze_unconfirmed(self, stock: Stock) -> bool:
        froze = False
        for id in sorted(self._unconfirmed & stock.heads.keys()):
            if self._freeze(id, _GONE, UNCONFIRMED):
                self._unconfirmed.remove(id)
                froze = True
        return froze

    def _freeze(self, budget_id: str, reason: str, witness: str) -> bool:
        try:
            with self._engine.begin() as connection:
                policy.freeze(connection, budget_id, reason, witness)
        except (sa.exc.SQLAlchemyError, LedgerError) as error:
            logger.error("budget %s cannot be frozen (%s): %s", budget_id, type(error).__name__, reason)
            self._held_back.add(budget_id)
            return False
        logger.error("budget %s is frozen: %s", budget_id, reason)
        return True

    def _record_losses(self) -> None:
        lost = self._known.lost
        if not lost:
            return
        try:
            with self._engine.begin() as connection:
                recorded = connection.execute(
                    sa.select(lost_budget.c.budget_id).where(lost_budget.c.budget_id.in_(lost))
                )
                new = [lost[id] for id in sorted(lost.keys() - set(recorded.scalars()))]
                for head in new:
                    values = {"budget_id": head.budget_id, "seq": head.seq, "hash": bytes.fromhex(head.hash)}
                    connection.execute(insert(lost_budget).values(values).on_conflict_do_nothing())
        except sa.exc.SQLAlchemyError as error:
            logger.error("%d budgets are lost, which cannot be recorded: %s", len(lost), type(error).__name__)
            return
        for head in new:
            logger.error(
                "budget %s is lost: the witness saw entry %d, the database does not know it", head.budget_id, head.seq
            )

    def _note_unconfirmed(self) -> None:
        """The first witness is gone: whatever has a history that no other one confirms is to be frozen."""
        with self._engine.connect() as connection:
            present = chains.take_stock(connection, KnownHeads()).heads
        self._gone = False
        others = self.books[1:]
        for id, head in present.items():
            if head.seq > 1 and not any(book.told.get(id) == head for book in others):
                self._unconfirmed.add(id)
