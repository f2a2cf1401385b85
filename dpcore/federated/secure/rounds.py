"""One try of one round: messages are masked, it is agreed whose are in, masks are opened, the sum comes out."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dpcore.federated.secure.keys import PublicKeys, SiloKeys
from dpcore.mechanism.keystream import Keystream
from dpcore.terms.federated.options import LEAST_MASKED

NONCE = 16
"""Bytes."""


class NotOpened(ValueError):
    """A silo does not open its masks; the message says why."""


@dataclass(frozen=True)
class Try:
    """Which job, which round, and which attempt at it: masks are used for one of these and never again."""

    job: str
    round: int
    attempt: int

    @property
    def context(self) -> bytes:
        """What seeds and signatures are bound to."""
        return f"{len(self.job)}:{self.job}/{self.round}/{self.attempt}".encode()


@dataclass(frozen=True)
class Agreement:
    """Whose messages are in the sum, and the digest of each: the aggregator says it, and each of them signs it."""

    of: Try
    digests: Mapping[str, bytes]
    """sha256 of the masked message, by silo."""

    @property
    def signed(self) -> bytes:
        """The bytes that are signed."""
        names = b"".join(len(name).to_bytes(4) + name.encode() + self.digests[name] for name in sorted(self.digests))
        return b"tacit agreement\0" + self.of.context + b"\0" + names


@dataclass(frozen=True)
class Opening:
    """What a silo that is in gives away: the seed of its own mask, and those it shares with each silo that is out."""

    own: bytes
    shared: Mapping[str, bytes]


def digest(masked: np.ndarray) -> bytes:
    """Of a masked message."""
    return hashlib.sha256(masked.astype("<u8").tobytes()).digest()


@dataclass(frozen=True)
class SentBefore:
    """What is known of a silo's part in a try that was begun in another process: all of it may be public.

    nonce: of its masks; sent: the digest of its masked message; signature: the one under a list, if it signed any.
    """

    nonce: bytes
    sent: bytes
    signature: bytes | None


class MaskedSilo:
    """A silo's part in one try."""

    def __init__(
        self, name: str, keys: SiloKeys, everybody: Mapping[str, PublicKeys], of: Try, kept: SentBefore | None = None
    ) -> None:
        """everybody: the public keys of all silos of the job, this one among them, as they were fixed before it.

        Without `kept`, its own mask is a new one: whoever trains a round once more sends another message, and of two
        under one mask the difference could be had. The mask of a message that did not become the round's is never
        opened.
        """
        if everybody.get(name) != keys.public:
            raise ValueError(f"the silo {name} is not among the silos of the job under this key")
        if len({key for public in everybody.values() for key in (public.agree, public.sign)}) != 2 * len(everybody):
            raise ValueError("two silos of the job have the same key")
        self._name, self._keys, self._everybody, self._of = name, keys, everybody, of
        self.nonce = os.urandom(NONCE) if kept is None else kept.nonce
        self._seed = keys.own_seed(of.context + b"\0" + self.nonce)
        self._sent = None if kept is None else kept.sent
        self._signature = None if kept is None else kept.signature
        self._agreed: Agreement | None = None

    def mask(self, encoded: np.ndarray) -> np.ndarray:
        """The message uint64 [n] with all masks on it. Raises ValueError when asked for another one: two messages
        under one mask would give away their difference."""
        if self._sent is not None:
            raise ValueError("this try's masks are used up; the message is sent again as it was")
        masked: np.ndarray = encoded + _stream(self._seed, encoded.size)
        for other in self._everybody.keys() - {self._name}:
            masked = masked + _signed(self._name, other, _stream(self._shared(other), encoded.size))
        self._sent = digest(masked)
        return masked

    def agree(self, agreement: Agreement) -> bytes:
        """The silo's signature under who is in. Raises NotOpened for a list that it must not open for, a second one
        included: from two different ones the masks of whoever is in one and not in the other could be had."""
        if agreement.of != self._of:
            raise NotOpened("the agreement is for another round or try")
        if unknown := agreement.digests.keys() - self._everybody.keys():
            raise NotOpened(f"not silos of this job: {', '.join(sorted(unknown))}")
        if len(agreement.digests) < LEAST_MASKED:
            raise NotOpened(f"a sum needs at least {LEAST_MASKED} silos; there are {len(agreement.digests)}")
        if self._sent is None or agreement.digests.get(self._name) != self._sent:
            raise NotOpened("this silo's own message is not in the sum as it was sent")
        signature = self._keys.signature(agreement.signed)  # the same for the same list
        if self._signature not in (None, signature):
            raise NotOpened("another list was agreed on in this try")
        self._agreed, self._signature = agreement, signature
        return signature

    def open(self, signatures: Mapping[str, bytes]) -> Opening:
        """The seeds that the sum needs, once everybody who is in has signed the same list. Raises NotOpened."""
        if self._agreed is None:
            raise NotOpened("this silo has agreed to nothing yet")
        for name in self._agreed.digests:
            if not self._everybody[name].signed(self._agreed.signed, signatures.get(name, b"")):
                raise NotOpened(f"{name} has not signed the same list")
        out = self._everybody.keys() - self._agreed.digests.keys()
        return Opening(self._seed, {other: self._shared(other) for other in out})

    def _shared(self, other: str) -> bytes:
        return self._keys.seed_with(self._everybody[other], self._of.context)


@dataclass
class Aggregator:
    """Adds up the masked messages of one try, and takes the masks off the sum."""

    everybody: Mapping[str, PublicKeys]
    of: Try
    _masked: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, name: str, masked: np.ndarray) -> None:
        """A silo's masked message uint64 [n]. The same one again changes nothing. Raises ValueError for another one, a
        silo that is not of the job, and another length than the first one's."""
        if name not in self.everybody:
            raise ValueError(f"{name} is not a silo of this job")
        if masked.dtype != np.uint64 or masked.ndim != 1 or any(m.size != masked.size for m in self._masked.values()):
            raise ValueError(f"the message of {name} has another shape than this round's")
        if name in self._masked and digest(self._masked[name]) != digest(masked):
            raise ValueError(f"{name} has sent another message in this try already")
        self._masked[name] = masked

    @property
    def names(self) -> list[str]:
        """Of the silos whose messages are there, in order."""
        return sorted(self._masked)

    def agreement(self) -> Agreement:
        """Whose messages are in, as of now. Raises ValueError for too few."""
        if len(self._masked) < LEAST_MASKED:
            raise ValueError(f"a sum needs at least {LEAST_MASKED} silos; there are {len(self._masked)}")
        return Agreement(self.of, {name: digest(masked) for name, masked in self._masked.items()})

    def total(self, agreement: Agreement, openings: Mapping[str, Opening]) -> np.ndarray:
        """The sum uint64 [n] of the messages that were agreed on. Raises ValueError when one who is in has not opened:
        the try is over then, and the next one has new masks."""
        inside, out = agreement.digests.keys(), self.everybody.keys() - agreement.digests.keys()
        if any(name not in self._masked or digest(self._masked[name]) != agreement.digests[name] for name in inside):
            raise ValueError("a message that was agreed on is not there as it was")
        total = np.zeros(next(iter(self._masked.values())).size, np.uint64)
        for name in sorted(inside):
            opening = openings.get(name)
            if opening is None or opening.shared.keys() != out:
                raise ValueError(f"{name} has not opened the masks of this try; it needs another one")
            total += self._masked[name] - _stream(opening.own, total.size)
            for other, seed in opening.shared.items():
                total -= _signed(name, other, _stream(seed, total.size))
        return total


def _stream(seed: bytes, count: int) -> np.ndarray:
    return Keystream(seed).integers(count)


def _signed(mine: str, other: str, mask: np.ndarray) -> np.ndarray:
    """One of a pair adds the mask, the other one takes it away."""
    return mask if mine < other else np.uint64(0) - mask
