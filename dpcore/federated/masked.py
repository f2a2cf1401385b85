"""A round whose messages are added up behind masks, all parts of it in one process: who says what to whom is the
caller's affair."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dpcore.federated.message import Message
from dpcore.federated.secure import grid
from dpcore.federated.secure.keys import SiloKeys
from dpcore.federated.secure.rounds import LEAST, Aggregator, MaskedSilo, Try
from dpcore.federated.server import State, TooFewSilos


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
    state: State, came: Mapping[str, Message], sizes: Mapping[str, int], keys: Mapping[str, SiloKeys], least: int
) -> dict[str, Tensor]:
    """The mean of what came, weighted by declared sizes, with every silo and the aggregator played here.

    least: silos that a round needs; a masked sum needs three in any case. Raises TooFewSilos, and ValueError for sizes
    that a sum has no room for.
    """
    grid.weights_fit(sizes)
    if len(came) < max(least, LEAST):
        raise TooFewSilos(f"{len(came)} of at least {max(least, LEAST)} silos' messages came")
    of, everybody = Try(state.job, state.round, 0), {name: keys[name].public for name in sizes}
    silos = {name: MaskedSilo(name, keys[name], everybody, of) for name in came}
    aggregator = Aggregator(everybody, of)
    for name, message in came.items():
        aggregator.take(name, silos[name].mask(encoded(message, sizes[name])))
    agreement = aggregator.agreement()
    signatures = {name: silo.agree(agreement) for name, silo in silos.items()}
    total = aggregator.total(agreement, {name: silo.open(signatures) for name, silo in silos.items()})
    names = list(next(iter(came.values())).delta)
    return decoded(total, sum(sizes[name] for name in came), state, names)
