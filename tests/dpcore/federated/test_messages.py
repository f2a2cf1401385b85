"""What comes in a round counts only if it can be a silo's message of that round, and is refused in clear words."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from dpcore.federated import masked, message, tensors
from dpcore.federated.masked import Masked
from dpcore.federated.message import Expected, Message, RefusedMessage

SHAPES = {"x.lora_B.weight": torch.Size([4, 2]), "head.bias": torch.Size([3])}
EXPECTED = Expected("job", 2, {"a", "b"}, "f" * 64, SHAPES, {"a": 10.0})


def made(job="job", round=2, silo="a", began="f" * 64, **changes):
    delta = {name: torch.full(shape, 0.5) for name, shape in SHAPES.items()} | changes
    return Message(job, round, silo, began, {n: v for n, v in delta.items() if v is not None})


def test_a_message_comes_back_as_it_was_sent():
    data = message.dumps(made())
    assert data == message.dumps(made())
    found = message.loads(data, EXPECTED, {"b"})
    assert (found.job, found.round, found.silo, found.began) == ("job", 2, "a", "f" * 64)
    assert all(torch.equal(found.delta[n], v) for n, v in made().delta.items())
    message.loads(message.dumps(made(silo="b", **{"head.bias": torch.full((3,), 1e3)})), EXPECTED)  # b has no bound


BIAS = "head.bias"
REFUSED = [
    (made(job="other"), "another job"),
    (made(round=1), "not of round 2"),
    (made(round=True), "does not say"),
    (made(silo=["a"]), "does not say"),
    (made(silo="c"), "takes no part"),
    (made(silo="b"), "there already"),
    (made(began="e" * 64), "other weights"),
    (made(**{BIAS: None}), "not those that this round trains"),
    (made(more=torch.zeros(1)), "not those that this round trains"),
    (made(**{BIAS: torch.zeros(1, 3)}), r"shape \[1, 3\] in place of \[3\]"),
    (made(**{BIAS: torch.zeros(3).half()}), "float16 in place of"),
    (made(**{BIAS: torch.zeros(3, dtype=torch.int32)}), "int32 in place of"),
    (made(**{BIAS: torch.tensor([0.0, torch.nan, 0.0])}), "not finite"),
    (made(**{BIAS: torch.tensor([0.0, -torch.inf, 0.0])}), "not finite"),
    (made(**{BIAS: torch.full((3,), 6.0)}), "longer than 10"),
]


@pytest.mark.parametrize(("sent", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_cannot_be_a_message_of_the_round_is_refused(sent, words):
    with pytest.raises(RefusedMessage, match=words):
        message.loads(message.dumps(sent), EXPECTED, {"b"})


def test_a_message_that_is_too_large_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(tensors, "loads", lambda data: pytest.fail("it was read"))
    with pytest.raises(RefusedMessage, match="bytes"):
        message.loads(bytes(EXPECTED.most_bytes + 1), EXPECTED)


WHOLE = message.dumps(made())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        WHOLE[:-1],
        WHOLE[:40],
        b"\x80\x04K\x01.",  # a pickle
        (2**62).to_bytes(8, "little") + b"{}",
        save({"x": torch.zeros(1)}),
        save({"x": torch.zeros(1)}, metadata={"tacit": "[" * 1500}),
        save({"x": torch.zeros(1)}, metadata={"tacit": "[]"}),
        save(dict(made().delta), metadata={"tacit": json.dumps({"format": "another"})}),
    ],
    ids=range(9),
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(RefusedMessage):
        message.loads(data, EXPECTED)


def test_every_honest_message_is_small_enough():
    """With the longest ids that a job and a silo have."""
    name = "i" * 100
    most = Expected(name, 999, {name}, "f" * 64, SHAPES).most_bytes
    assert len(message.dumps(made(job=name, round=999, silo=name))) <= most


VECTOR = np.arange(11, dtype=np.uint64)
MASKED = Masked("job", 2, "a", "f" * 64, bytes(16), VECTOR)


def test_a_masked_message_comes_back_as_it_was_sent():
    vector = VECTOR + np.uint64(2**63)
    found = masked.loads(masked.dumps(replace(MASKED, vector=vector)), EXPECTED)
    assert (found.vector == vector).all()
    assert replace(found, vector=MASKED.vector) == MASKED


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (masked.dumps(replace(MASKED, round=1)), "not of round 2"),
        (masked.dumps(replace(MASKED, silo="c")), "takes no part"),
        (masked.dumps(replace(MASKED, nonce=b"")), "no message of the format"),
        (masked.dumps(replace(MASKED, vector=VECTOR[:-1])), "no vector of 11 integers"),
        (masked.dumps(replace(MASKED, vector=VECTOR.reshape(1, -1))), "no vector of 11 integers"),
        (tensors.dumps({"masked": torch.zeros(11)}, {"format": masked.FORMAT, "nonce": 3}), "no masked message"),
        (WHOLE, "no masked message"),
        (b"garbage", "no masked message"),
        (bytes(masked.most_bytes(EXPECTED) + 1), "bytes"),
    ],
    ids=range(9),
)
def test_what_is_no_masked_message_of_the_round_is_refused(data, words):
    with pytest.raises(RefusedMessage, match=words):
        masked.loads(data, EXPECTED)
