"""The parent's side: it takes the mean of what came, and opens no row.

Everything here is post-processing of noised messages. Messages are added in the order of their silos' names, in
float64, so that the result does not depend on which came first, and a coordinator that was killed goes on from its last
state to the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcore.federated import tensors
from dpcore.federated.message import Expected, Message, sha256
from dpcore.terms.federated.options import Options
from dpcore.terms.federated.weights import weights

FORMAT = "tacit-federated-state-1"
BETAS = (0.9, 0.99)
"""Of FedAdam (Reddi et al. 2021, Algorithm 2), with Adam's correction of the bias, so that the first rounds are steps
like any other."""
EPSILON = 1e-8
_FACTOR, _FIRST, _SECOND = "factor", "first", "second"


class TooFewSilos(RuntimeError):
    """Fewer messages came than a round needs: it changes nothing, and the silos' steps stay paid for."""


@dataclass(frozen=True)
class State:
    """After `round` rounds. factors: float32 by parameter name, of all weights that some round trains. Adam's moments:
    float64, of the weights that trained so far; counts: rounds that each of them trained in."""

    job: str
    round: int
    factors: Mapping[str, Tensor]
    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    counts: Mapping[str, int]


def begin(job: str, factors: Mapping[str, Tensor]) -> State:
    """Before the first round. factors: as the public seed made them."""
    return State(job, 0, {name: value.detach().clone() for name, value in factors.items()}, {}, {}, {})


def start(state: State) -> bytes:
    """What every silo begins the next round at: the factors alone, in bytes whose sha a silo's message names."""
    return tensors.dumps(state.factors, {"job": state.job, "round": state.round})


def expected(state: State, options: Options, silos: Mapping[str, float | None]) -> Expected:
    """What the next round's messages must be. silos: the length of each one's message at most, where there is a bound
    (`dpcore.terms.federated.silo.longest_message`)."""
    shapes = {n: value.shape for n, value in state.factors.items() if options.trains(n, state.round)}
    longest = {silo: bound for silo, bound in silos.items() if bound is not None}
    return Expected(state.job, state.round, set(silos), sha256(start(state)), shapes, longest)


def aggregate(state: State, options: Options, messages: Mapping[str, Message], sizes: Mapping[str, int]) -> State:
    """The next round's state, from the messages that came, by silo, as `message.loads` let them pass. sizes: declared,
    of all silos. Raises TooFewSilos, and then `aborted` is the next state."""
    if len(messages) < options.least:
        raise TooFewSilos(f"{len(messages)} of at least {options.least} silos' messages came")
    parts, means = weights(sizes, messages), {}
    for name in [name for name in state.factors if options.trains(name, state.round)]:
        means[name] = torch.zeros_like(state.factors[name], dtype=torch.float64)
        for silo, part in parts.items():
            means[name] += float(part) * messages[silo].delta[name].double()
    return advance(state, options, means)


def advance(state: State, options: Options, means: Mapping[str, Tensor]) -> State:
    """The next round's state, from the weighted mean of the silos' messages: float64, of the weights that this round
    trains."""
    factors, counts = dict(state.factors), dict(state.counts)
    first, second = dict(state.first), dict(state.second)
    for name, mean in means.items():
        if options.server == "fedadam":
            counts[name] = counts.get(name, 0) + 1
            first[name] = _averaged(first.get(name), mean, BETAS[0])
            second[name] = _averaged(second.get(name), mean.square(), BETAS[1])
            one, two = (1 - decay ** counts[name] for decay in BETAS)
            mean = first[name] / one / ((second[name] / two).sqrt() + EPSILON)
        factors[name] = (state.factors[name].double() + options.rate * mean).to(state.factors[name].dtype)
    return State(state.job, state.round + 1, factors, first, second, counts)


def _averaged(before: Tensor | None, now: Tensor, decay: float) -> Tensor:
    return (1 - decay) * now if before is None else decay * before + (1 - decay) * now


def aborted(state: State) -> State:
    """The state after a round of too few messages: nothing but the round's number changes, so that no silo ever runs
    one round twice."""
    return replace(state, round=state.round + 1)


def dumps(state: State) -> bytes:
    """The state as bytes."""
    kinds = {_FACTOR: state.factors, _FIRST: state.first, _SECOND: state.second}
    named = {f"{kind}/{name}": value for kind, values in kinds.items() for name, value in values.items()}
    about: dict[str, Any] = {"format": FORMAT, "job": state.job, "round": state.round, "counts": dict(state.counts)}
    return tensors.dumps(named, about)


def loads(data: bytes) -> State:
    """The bytes as a state. Raises ValueError when they are none."""
    named, about = tensors.loads(data)
    if about.get("format") != FORMAT:
        raise ValueError(f"not a state of the format {FORMAT}")
    kinds: dict[str, dict[str, Tensor]] = {_FACTOR: {}, _FIRST: {}, _SECOND: {}}
    for key, value in named.items():
        kind, _, name = key.partition("/")
        kinds[kind][name] = value
    return State(about["job"], about["round"], kinds[_FACTOR], kinds[_FIRST], kinds[_SECOND], about["counts"])
