"""A silo's side of masks: its keys, its message behind them, and what it signs and opens once it is agreed whose
messages are in. Everything but the secret keys can be had again from what it sent, so that a worker that died costs
nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from obstore.exceptions import NotFoundError

from domain.federated import masks, rounds
from domain.federated.masks import MaskedPart
from domain.federated.rounds import Membership, NewestRound
from domain.storage.blobs import get_bytes, put_bytes
from domain.storage.sealing import Tampered
from dpcore.federated import masked
from dpcore.federated.message import Expected, Message, RefusedMessage, sha256
from dpcore.federated.secure.keys import PublicKeys, SiloKeys
from dpcore.federated.secure.rounds import Agreement, MaskedSilo, NotOpened, Opening, SentBefore, digest
from ledger.errors import RoundClosed
from worker.errors import Refused
from worker.federated.waiting import hint
from worker.log import log
from worker.training import Training, needs_services

LOST = Refused("masks_lost", "The secret keys of this silo's masks are gone from its store.")


@dataclass(frozen=True)
class SiloMasks:
    """Of one silo's job."""

    training: Training
    member: Membership
    keys: SiloKeys

    @classmethod
    def of(cls, training: Training, member: Membership) -> "SiloMasks":
        """With the keys that the silo has said; new ones, kept in its own store and said, where it has said none.
        Raises Refused where it cannot have them again."""
        with needs_services(), training.engine.connect() as connection:
            said = masks.own_keys(connection, training.lease.job_id)
        if said is None:
            keys = SiloKeys()
            with needs_services():
                put_bytes(training.store, _blob(training, training.lease.fence), keys.dumps())
            with needs_services(), training.engine.begin() as connection:
                masks.say_keys(connection, training.lease, keys.public.text)
            hint(training.settings, member.parent_id)
            return cls(training, member, keys)
        secret = _fetched(training, _blob(training, said.fence))
        try:
            keys = SiloKeys.loads(secret or b"")
        except ValueError:
            raise LOST from None
        if keys.public.text != said.public:
            raise LOST
        return cls(training, member, keys)

    def mask(self, now: NewestRound, message: Message) -> bytes | None:
        """The message as it travels; None where the round's silos are not such that this one may take part. Its own
        mask is a new one each time; that of a message which was not sent is never opened."""
        try:
            made = masked.mask(self._silo(now, None), message, self.member.declared_size)
        except (ValueError, LookupError) as error:
            log.error("job %s: no message behind masks: %s", self.training.lease.job_id, error)
            return None
        return masked.dumps(made)

    def asked(self, now: NewestRound) -> bool:
        """Whether there is something to sign or to open now."""
        if now.agreed is None or self.member.name not in now.agreed:
            return False
        parts = self._parts(now)
        mine = parts.get(self.member.name)
        return mine is not None and (mine.signature is None or (mine.opening is None and _all_signed(now, parts)))

    def go_on(self, now: NewestRound, expected: Expected) -> Literal["signed", "opened", "late", "refused"]:
        """Sign, or open, what is to be signed or opened. refused: a list that this silo does not open for."""
        assert now.agreed is not None
        training, parts = self.training, self._parts(now)
        mine = parts[self.member.name]
        try:
            silo = self._silo(now, self._kept(mine, expected))
            agreement = Agreement(
                masked.attempt(self.member.parent_id, now.number),
                {name: bytes.fromhex(value) for name, value in now.agreed.items()},
            )
            signature = silo.agree(agreement)
            if mine.signature is None:
                with needs_services(), training.engine.begin() as connection:
                    masks.sign(connection, training.lease, now.number, signature.hex())
                self._wake(now)
                return "signed"
            signed = {name: bytes.fromhex(part.signature) for name, part in parts.items() if part.signature}
            opening = silo.open(signed)
            with needs_services(), training.engine.begin() as connection:
                masks.open_masks(connection, training.lease, now.number, written(opening))
                complete = rounds.complete(connection, self.member.parent_id)
        except RoundClosed:
            return "late"
        except (NotOpened, RefusedMessage, ValueError, LookupError) as error:
            log.error("job %s: masks of round %d stay closed: %s", training.lease.job_id, now.number, error)
            return "refused"
        if complete:
            hint(training.settings, self.member.parent_id)
        return "opened"

    def _silo(self, now: NewestRound, kept: SentBefore | None) -> MaskedSilo:
        with needs_services(), self.training.engine.connect() as connection:
            said = masks.keys(connection, self.member.parent_id)
        everybody = {name: PublicKeys.loads(said[name]) for name in now.silos or ()}
        of = masked.attempt(self.member.parent_id, now.number)
        return MaskedSilo(self.member.name, self.keys, everybody, of, kept)

    def _kept(self, mine: MaskedPart, expected: Expected) -> SentBefore:
        """From the message as it was sent: its row says so, whatever lies in the store."""
        data = _fetched(self.training, mine.blob)
        if data is None or sha256(data) != mine.sha256:
            raise RefusedMessage("the message is not what was sent")
        sent = masked.loads(data, expected)
        return SentBefore(
            sent.nonce, digest(sent.vector), None if mine.signature is None else bytes.fromhex(mine.signature)
        )

    def _parts(self, now: NewestRound) -> Mapping[str, MaskedPart]:
        with needs_services(), self.training.engine.connect() as connection:
            return masks.parts(connection, self.member.parent_id, now.number)

    def _wake(self, now: NewestRound) -> None:
        """Once everybody has signed, those who are not at it open their masks."""
        if not _all_signed(now, self._parts(now)):
            return
        with needs_services(), self.training.engine.connect() as connection:
            here = rounds.taking_part(connection, self.member.parent_id)
        for silo in here:
            if silo.job_id != self.training.lease.job_id:
                hint(self.training.settings, silo.job_id, silo.place)


def _fetched(training: Training, blob: str) -> bytes | None:
    """None where there is no such blob, or not what was stored."""
    with needs_services():
        try:
            return get_bytes(training.store, blob)
        except (FileNotFoundError, NotFoundError, Tampered):
            return None


def written(opening: Opening) -> dict[str, object]:
    """An opening as JSON."""
    return {"own": opening.own.hex(), "shared": {name: seed.hex() for name, seed in opening.shared.items()}}


def read(opening: Mapping[str, object] | None) -> Opening | None:
    """What `written` wrote; None for anything else."""
    try:
        assert opening is not None
        shared = opening["shared"]
        assert isinstance(shared, dict)
        return Opening(bytes.fromhex(str(opening["own"])), {name: bytes.fromhex(seed) for name, seed in shared.items()})
    except (AssertionError, KeyError, ValueError, TypeError):
        return None


def _all_signed(now: NewestRound, parts: Mapping[str, MaskedPart]) -> bool:
    return all(name in parts and parts[name].signature for name in now.agreed or ())


def _blob(training: Training, fence: int) -> str:
    return f"{training.store.home}jobs/{training.lease.job_id}/checkpoints/masks-{fence}.bin"
