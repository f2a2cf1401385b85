"""Messages that are added up behind masks: what travels, and the mean of what is in the sum.

A masked message says what a plain one says, with one vector of integers modulo 2^64 in place of the weights, which is
uniform to whoever does not know the masks: its length and its finiteness cannot be looked at, those of the mean can.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpcore.federated import tensors
from dpcore.federated.message import Expected, Message, RefusedMessage, require_of_this_round
from dpcore.federated.secure import grid
from dpcore.federated.secure.keys import SiloKeys
from dpcore.federated.secure.rounds import NONCE, Aggregator, Agreement, MaskedSilo, Opening, Try
from dpcore.federated.server import State, TooFewSilos
from dpcore.terms.federated.options import LEAST_MASKED

FORMAT = "tacit-masked-message-1"
_VECTOR = "masked"
_HEADER = 4096


@dataclass(frozen=True)
class Masked:
    """A silo's message under masks: uint64 [n]. nonce: of the masks, public."""

    job: str
    round: int
    silo: str
    began: str
    nonce: bytes
    vector: np.ndarray


def attempt(job: str, round: int) -> Try:
    """The one try of a round: a sum that is not opened costs the round, since the same messages behind new masks, in
    another sum, would give away their difference."""
    return Try(job, round, 0)


def mask(silo: MaskedSilo, message: Message, weight: int) -> Masked:
    """A silo's message behind its masks. weight: its declared size. Raises ValueError when asked twice."""
    vector = silo.mask(encoded(message, weight))
    return Masked(message.job, message.round, message.silo, message.began, silo.nonce, vector)


def most_bytes(expected: Expected) -> int:
    """Of a masked message."""
    return _HEADER + 8 * sum(shape.numel() for shape in expected.shapes.values())


def dumps(message: Masked) -> bytes:
    """The message as bytes."""
    about = {"format": FORMAT, "job": message.job, "round": message.round, "silo": message.silo}
    about |= {"began": message.began, "nonce": message.nonce.hex()}
    return tensors.dumps({_VECTOR: torch.from_numpy(message.vector.view(np.int64))}, about)


def loads(data: bytes, expected: Expected) -> Masked:
    """The bytes as a masked message of this round. Raises RefusedMessage."""
    if len(data) > most_bytes(expected):
        raise RefusedMessage(f"the message has {len(data)} bytes, and one of this round at most {most_bytes(expected)}")
    try:
        named, about = tensors.loads(data)
        nonce = bytes.fromhex(about["nonce"])
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedMessage("these bytes are no masked message") from error
    if about.get("format") != FORMAT or len(nonce) != NONCE:
        raise RefusedMessage(f"it is no message of the format {FORMAT}")
    require_of_this_round(about, expected)
    numbers = sum(shape.numel() for shape in expected.shapes.values())
    if named.keys() != {_VECTOR} or named[_VECTOR].shape != (numbers,) or named[_VECTOR].dtype != torch.int64:
        raise RefusedMessage(f"the message is no vector of {numbers} integers")
    vector = named[_VECTOR].numpy().view(np.uint64)
    return Masked(about["job"], about["round"], about["silo"], about["began"], nonce, vector)


def summed(
    state: State,
    expected: Expected,
    aggregator: Aggregator,
    agreement: Agreement,
    openings: Mapping[str, Opening],
    sizes: Mapping[str, int],
) -> dict[str, Tensor]:
    """The weighted mean of the messages in the sum: float64 by parameter name. Raises ValueError where somebody has not
    opened, and for a mean that is longer than the messages could make it: somebody opened something else."""
    total = aggregator.total(agreement, openings)
    weight = sum(sizes[name] for name in agreement.digests)
    means = decoded(total, weight, state, list(expected.shapes))
    if all(name in expected.longest for name in agreement.digests):
        longest = sum(sizes[name] * expected.longest[name] for name in agreement.digests) / weight
        slack = grid.STEP * sum(value.numel() for value in means.values()) ** 0.5
        if torch.linalg.vector_norm(torch.cat([value.flatten() for value in means.values()])) > longest + slack:
            raise ValueError("the sum is longer than the messages in it could make it")
    return means


def encoded(message: Message, weight: int) -> np.ndarray:
    """A silo's message for a sum: uint64, its tensors one after the other in the order of their names."""
    flat = torch.cat([message.delta[name].double().flatten() for name in sorted(message.delta)])
    return grid.encode(flat.numpy(), weight)


def decoded(total: np.ndarray, weight: int, state: State, names: list[str]) -> dict[str, Tensor]:
    """The weighted mean of the messages in a sum: float64 by parameter name."""
    flat, means = torch.from_numpy(grid.decode(total, weight)), {}
    for name in sorted(names):
        shape = state.factors[name].shape
        means[name], flat = flat[: shape.numel()].reshape(shape), flat[shape.numel() :]
    return means


def mean(
    state: State,
    expected: Expected,
    came: Mapping[str, Message],
    sizes: Mapping[str, int],
    keys: Mapping[str, SiloKeys],
    least: int = LEAST_MASKED,
) -> dict[str, Tensor]:
    """The mean of what came, weighted by declared sizes, with every silo and the aggregator played here.

    least: silos that a round needs; a masked sum needs three in any case. Raises TooFewSilos, and ValueError for sizes
    that a sum has no room for.
    """
    grid.weights_fit(sizes)
    if len(came) < max(least, LEAST_MASKED):
        raise TooFewSilos(f"{len(came)} of at least {max(least, LEAST_MASKED)} silos' messages came")
    of, everybody = attempt(state.job, state.round), {name: keys[name].public for name in sizes}
    silos = {name: MaskedSilo(name, keys[name], everybody, of) for name in came}
    aggregator = Aggregator(everybody, of)
    for name, message in came.items():
        aggregator.take(name, loads(dumps(mask(silos[name], message, sizes[name])), expected).vector)
    agreement = aggregator.agreement()
    signatures = {name: silo.agree(agreement) for name, silo in silos.items()}
    return summed(
        state, expected, aggregator, agreement, {name: silo.open(signatures) for name, silo in silos.items()}, sizes
    )
