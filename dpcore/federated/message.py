"""What a silo sends in a round, and what is refused before it counts.

Guarantee: a message holds the difference of weights after authorised, noised steps (or of one clipped and noised delta)
and the public weights that they began at, and nothing else: names, shapes and bytes follow from public values alone.
What comes is not trusted to be that: sizes are compared before a byte is parsed, everything else before it is added.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpcore.federated import tensors

FORMAT = "tacit-silo-message-1"
_HEADER, _HEADER_EACH = 2048, 256
"""Bytes of metadata, and of one tensor's entry beside its name."""


class RefusedMessage(ValueError):
    """A message that does not count, and why: fit for everybody, since it names public values alone."""


@dataclass(frozen=True)
class Message:
    """What changed in a silo: float32 by parameter name, of the weights that the round trains. began: the sha256 of
    what it started from, as the server sent it."""

    job: str
    round: int
    silo: str
    began: str
    delta: Mapping[str, Tensor]


@dataclass(frozen=True)
class Expected:
    """What a round's messages must be. shapes: of the weights that it trains. longest: the L2 norm of a silo's message
    at most, for those that have a public bound."""

    job: str
    round: int
    silos: Collection[str]
    began: str
    shapes: Mapping[str, torch.Size]
    longest: Mapping[str, float] = field(default_factory=dict)

    @property
    def most_bytes(self) -> int:
        """Of a message."""
        header = _HEADER + sum(_HEADER_EACH + len(name.encode()) for name in self.shapes)
        return header + 4 * sum(shape.numel() for shape in self.shapes.values())


def sha256(data: bytes) -> str:
    """Of what the server sent, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def dumps(message: Message) -> bytes:
    """The message as bytes, the same for the same message."""
    metadata = {"format": FORMAT, "job": message.job, "round": message.round, "silo": message.silo}
    return tensors.dumps(message.delta, metadata | {"began": message.began})


def loads(data: bytes, expected: Expected, came: Collection[str] = ()) -> Message:
    """The bytes as a message of this round. came: the silos whose messages are there. Raises RefusedMessage."""
    if len(data) > expected.most_bytes:
        raise RefusedMessage(f"the message has {len(data)} bytes, and a round's message at most {expected.most_bytes}")
    try:
        delta, metadata = tensors.loads(data)
    except ValueError as error:
        raise RefusedMessage(str(error)) from error
    if metadata.get("format") != FORMAT:
        raise RefusedMessage(f"it is no message of the format {FORMAT}")
    require_of_this_round(metadata, expected)
    message = Message(metadata["job"], metadata["round"], metadata["silo"], metadata["began"], delta)
    if message.silo in came:
        raise RefusedMessage(f"a message of silo {message.silo} is there already")
    _require_shaped(delta, expected.shapes)
    _require_bounded(message, expected)
    return message


def require_of_this_round(metadata: Mapping[str, Any], expected: Expected) -> None:
    """Raises RefusedMessage for what a message says of itself, where it is not of this round and of a silo in it."""
    job, round, silo, began = (metadata.get(name) for name in ("job", "round", "silo", "began"))
    # True is 1 for Python, and not for JSON.
    if type(round) is not int or not all(isinstance(name, str) for name in (job, silo, began)):
        raise RefusedMessage("the message does not say what it is of")
    if job != expected.job:
        raise RefusedMessage("the message is of another job")
    if round != expected.round:
        raise RefusedMessage(f"the message is not of round {expected.round}")
    if silo not in expected.silos:
        raise RefusedMessage("the message is of a silo that takes no part")
    if began != expected.began:
        raise RefusedMessage("the message began at other weights than this round's")


def _require_shaped(delta: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    if delta.keys() != shapes.keys():
        raise RefusedMessage("the message's weights are not those that this round trains")
    for name, shape in shapes.items():
        if delta[name].shape != shape:
            raise RefusedMessage(f"{name} has the shape {list(delta[name].shape)} in place of {list(shape)}")
        if delta[name].dtype != torch.float32:
            raise RefusedMessage(f"{name} is {delta[name].dtype} in place of float32")


def _require_bounded(message: Message, expected: Expected) -> None:
    flat = torch.cat([value.double().flatten() for value in message.delta.values()])
    if not flat.isfinite().all():
        raise RefusedMessage("the message has numbers that are not finite")
    longest = expected.longest.get(message.silo)
    if longest is not None and torch.linalg.vector_norm(flat) > longest:
        raise RefusedMessage(f"the message is longer than {longest:.4g}, which no message of this silo can be")
