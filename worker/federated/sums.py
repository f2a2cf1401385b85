"""The coordinator's side of masks: it takes masked messages, says whose are in, and takes the masks off their sum."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from domain.federated import masks, rounds
from domain.federated.rounds import NewestRound
from dpcore.federated import masked, message
from dpcore.federated.message import Expected, RefusedMessage
from dpcore.federated.secure.keys import PublicKeys
from dpcore.federated.secure.rounds import Aggregator, Agreement
from dpcore.federated.server import State
from worker.federated.masks import read
from worker.federated.waiting import hint
from worker.log import log
from worker.training import Training, needs_services


@dataclass(frozen=True)
class Sums:
    """Of one federated job. fetched(blob, most): a message's bytes, or None. sizes: declared, by silo."""

    training: Training
    sizes: Mapping[str, int]
    fetched: Callable[[str, int], bytes | None]

    def agree(self, now: NewestRound, expected: Expected, least: int) -> list[str]:
        """Say whose messages are in, and answer them; with too few nothing is said, and the round is over."""
        aggregator = self._taken(now, expected)
        if len(aggregator.names) < least:
            return aggregator.names
        digests = {name: value.hex() for name, value in aggregator.agreement().digests.items()}
        training = self.training
        with needs_services(), training.engine.begin() as connection:
            masks.agree(connection, training.lease, now.number, digests)
            here = rounds.taking_part(connection, training.lease.job_id)
        for silo in here:
            if silo.name in digests:
                hint(training.settings, silo.job_id, silo.place)
        return aggregator.names

    def mean(self, now: NewestRound, expected: Expected, state: State) -> dict[str, Tensor] | None:
        """The mean of the messages that are in; None where their masks were not opened: the round is lost."""
        assert now.agreed is not None
        training = self.training
        aggregator = self._taken(now, expected)
        agreement = Agreement(
            masked.attempt(training.lease.job_id, now.number),
            {name: bytes.fromhex(value) for name, value in now.agreed.items()},
        )
        with needs_services(), training.engine.connect() as connection:
            parts = masks.parts(connection, training.lease.job_id, now.number)
        opened = {name: opening for name, part in parts.items() if (opening := read(part.opening)) is not None}
        try:
            return masked.summed(state, expected, aggregator, agreement, opened, self.sizes)
        except ValueError as error:
            log.warning("job %s: round %d is not opened: %s", training.lease.job_id, now.number, error)
            return None

    def _taken(self, now: NewestRound, expected: Expected) -> Aggregator:
        """What came of this round and is a message of it; of those that are agreed on, once they are."""
        training = self.training
        with needs_services(), training.engine.connect() as connection:
            said = masks.keys(connection, training.lease.job_id)
            sent = masks.parts(connection, training.lease.job_id, now.number)
        everybody = {name: PublicKeys.loads(said[name]) for name in now.silos or () if name in said}
        aggregator = Aggregator(everybody, masked.attempt(training.lease.job_id, now.number))
        for name, part in sent.items():
            if now.agreed is not None and name not in now.agreed:
                continue
            try:
                with needs_services():
                    data = self.fetched(part.blob, masked.most_bytes(expected))
                if data is None or message.sha256(data) != part.sha256:
                    raise RefusedMessage("the message is not what the silo said it sent")
                found = masked.loads(data, expected)
                if found.silo != name:
                    raise RefusedMessage("the message is of another silo")
                aggregator.take(name, found.vector)
            except ValueError as refused:
                log.error("job %s: round %d, %s: %s", training.lease.job_id, now.number, name, refused)
        return aggregator
