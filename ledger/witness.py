"""The witness: heads of the chains in append-only records outside the database.

A database restored from an old dump has forgotten charges whose results are out. A witness keeps a signed line for each
head that it was told of; a budget whose chain lacks one of them is frozen. Here: the lines, and what a place that keeps
them must be able to do.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.canonical import packed


@dataclass(frozen=True)
class Head:
    """How far a budget's chain had come: an entry, and its hash in hexadecimal."""

    budget_id: str
    seq: int
    hash: str
    supersedes: bool = field(default=False, compare=False)
    """Whether the entry is the operator's thaw that accepts the chain as it is: what the same witness says of the
    budget before this line no longer counts."""

    @property
    def name(self) -> str:
        return f"{self.seq}:{self.hash}"


@dataclass(frozen=True)
class Origin:
    """The first line of a witness: the database that it belongs to, by ledger.database_id."""

    database_id: str


WitnessLine = Head | Origin


class BrokenWitness(ValueError):
    """A line of a witness was not written by this service, or is damaged."""


class ForeignWitness(BrokenWitness):
    """A witness belongs to another database."""


class Place(Protocol):
    """Where one witness keeps its lines. The other methods are called inside `locked`, and those that read also inside
    `shared`; any may raise OSError."""

    name: str
    """What the operator calls it."""
    near: bool
    """Whether it is on this machine: then it must be readable at start, and is told with each charge."""

    def locked(self) -> AbstractContextManager[None]:
        """Until it ends no other process appends, or `append` notices that one did."""
        ...

    def shared(self) -> AbstractContextManager[None]:
        """For reading alone, while others may append: nothing is made or mended."""
        ...

    def intact(self) -> bool:
        """Whether all that this process has read and written is still there. False begins anew: all is unread."""
        ...

    def read(self) -> Iterator[list[bytes]]:
        """Lines that this process has not read, in batches; a batch counts as read once the next one is asked for."""
        ...

    def append(self, lines: Sequence[bytes]) -> bool:
        """Keep lines for good, all or none. False, and nothing is written, when somebody else came first."""
        ...


def sealed(key: Ed25519PrivateKey, line: WitnessLine) -> bytes:
    """A line as it is kept: JSON with its signature, and a line break."""
    said: dict[str, Any]
    if isinstance(line, Origin):
        said = {"database": line.database_id}
    else:
        said = {"budget": line.budget_id, "seq": line.seq, "hash": line.hash}
        said |= {"supersedes": True} if line.supersedes else {}
    return json.dumps(said | {"signature": key.sign(_signed(line)).hex()}).encode() + b"\n"


def opened(public_keys: Ed25519PublicKey | Sequence[Ed25519PublicKey], kept: bytes, place: str) -> WitnessLine:
    """A kept line, with or without its line break, that one of these keys signed. Raises BrokenWitness naming the
    place."""
    keys = [public_keys] if isinstance(public_keys, Ed25519PublicKey) else public_keys
    try:
        raw = json.loads(kept)
        if "database" in raw:
            line: WitnessLine = Origin(raw["database"])
        else:
            line = Head(raw["budget"], raw["seq"], raw["hash"], raw.get("supersedes") is True)
        signature = bytes.fromhex(raw["signature"])
        if any(_holds(key, signature, _signed(line)) for key in keys):
            return line
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BrokenWitness(f"a line of the witness in {place} was not signed by this service, or is damaged") from None


def _holds(key: Ed25519PublicKey, signature: bytes, line: bytes) -> bool:
    try:
        key.verify(signature, line)
    except InvalidSignature:
        return False
    return True


def _signed(line: WitnessLine) -> bytes:
    if isinstance(line, Origin):
        return packed(["tacit.witness.database.v1", line.database_id])
    kind = "tacit.witness.supersedes.v1" if line.supersedes else "tacit.witness.v1"
    return packed([kind, line.budget_id, str(line.seq), line.hash])
