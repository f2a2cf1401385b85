"""The mean of what came: by declared sizes, in any order, and by Adam's own arithmetic."""

import itertools
from dataclasses import replace

import pytest
import torch

from dpcore.federated import masked, message, server
from dpcore.federated.message import Message
from dpcore.federated.secure import grid
from dpcore.federated.secure.keys import SiloKeys
from dpcore.federated.server import TooFewSilos
from tests.dpcore.test_train import equal

from .conftest import make_options

SIZES = {"a": 100, "b": 300, "c": 7}
A, B, HEAD = "x.lora_A.weight", "x.lora_B.weight", "head.bias"
SHAPES = {A: (2, 4), B: (4, 2), HEAD: (3,)}


def state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return server.begin("job", {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()})


def messages(of, silos="abc", seed=1, options=None):
    generator, wanted = torch.Generator().manual_seed(seed), (options or make_options(factors="both")).trains
    draw = {s: {n: torch.randn(shape, generator=generator) for n, shape in SHAPES.items()} for s in "abc"}
    kept = {s: {n: v for n, v in draw[s].items() if wanted(n, of.round)} for s in silos}
    return {s: Message("job", of.round, s, "", delta) for s, delta in kept.items()}


@pytest.mark.parametrize("kind", ["fedavg", "fedadam"])
def test_the_order_of_messages_changes_no_bit(kind):
    options, ends = make_options(factors="both", server=kind), set()
    for order in itertools.permutations("abc"):
        now = state()
        for _ in range(3):
            came = messages(now, seed=now.round)
            now = server.aggregate(now, options, {silo: came[silo] for silo in order}, SIZES)
        ends.add(server.dumps(now))
    assert len(ends) == 1


def test_silos_count_by_their_declared_sizes_among_those_that_came():
    options, now = make_options(factors="both"), state()
    for silos, total in (("abc", 407), ("ab", 400), ("c", 7)):
        came = messages(now, silos)
        after = server.aggregate(now, options, came, SIZES)
        for name, before in now.factors.items():
            mean = sum(came[s].delta[name].double() * SIZES[s] / total for s in silos)
            torch.testing.assert_close(after.factors[name].double(), before + mean, rtol=1e-6, atol=1e-6)
    with pytest.raises(KeyError):
        server.aggregate(now, options, messages(now), {"a": 1, "b": 1})


def test_a_round_of_too_few_changes_nothing_but_its_number():
    options, now = make_options(factors="both", least_silos=3), state()
    with pytest.raises(TooFewSilos, match="2 of at least 3"):
        server.aggregate(now, options, messages(now, "ab"), SIZES)
    after = server.aborted(now)
    assert after.round == 1
    assert equal(now.factors, after.factors)
    assert server.start(after) != server.start(now)
    with pytest.raises(TooFewSilos):
        server.aggregate(now, make_options(least_silos=1), {}, SIZES)


@pytest.mark.parametrize("silos", ["abcd", "abd"])
def test_behind_masks_the_mean_is_the_same(silos):
    sizes, options, now = {**SIZES, "d": 20}, make_options(factors="both"), state()
    keys = {silo: SiloKeys() for silo in sizes}
    came = {**messages(now), "d": replace(messages(now, seed=2)["a"], silo="d")}
    came = {silo: replace(came[silo], began=message.sha256(server.start(now))) for silo in silos}
    wanted = server.expected(now, options, dict.fromkeys(sizes))
    means = masked.mean(now, wanted, came, sizes, keys, options.least)
    plain, hidden = server.aggregate(now, options, came, sizes), server.advance(now, options, means)
    for name in now.factors:
        torch.testing.assert_close(hidden.factors[name], plain.factors[name], rtol=0, atol=2 * grid.STEP)
    with pytest.raises(TooFewSilos, match="2 of at least 3"):
        masked.mean(now, wanted, {silo: came[silo] for silo in "ab"}, sizes, keys, 1)


@pytest.mark.parametrize("kind", ["both", "alternating"])
def test_fedadam_is_adam_on_the_mean_change(kind):
    """torch's own, a factor by itself where the two take turns; what does not train in a round stays, moments too."""
    options = make_options(factors=kind, server="fedadam", server_learning_rate=0.05)
    now, double = state(), {n: v.double().requires_grad_() for n, v in state().factors.items()}
    torchs = {n: torch.optim.Adam([p], lr=0.05, betas=server.BETAS) for n, p in double.items()}
    for _ in range(5):
        came = messages(now, seed=now.round, options=options)
        for name, p in double.items():
            if options.trains(name, now.round):
                p.grad = -sum(came[s].delta[name].double() * SIZES[s] / 407 for s in "abc")
                torchs[name].step()
        now = server.loads(server.dumps(server.aggregate(now, options, came, SIZES)))
        for name, p in double.items():
            torch.testing.assert_close(now.factors[name].double(), p.detach(), rtol=1e-5, atol=1e-6)


def test_what_a_round_expects():
    now = state()
    for kind, round, names in (
        ("a-frozen", 0, {B, HEAD}),
        ("both", 1, {A, B, HEAD}),
        ("alternating", 0, {B, HEAD}),
        ("alternating", 1, {A, HEAD}),
    ):
        wanted = server.expected(replace(now, round=round), make_options(factors=kind), {"a": 2.0, "b": None})
        assert wanted.shapes.keys() == names
        assert (wanted.round, wanted.silos, wanted.longest) == (round, {"a", "b"}, {"a": 2.0})
        assert wanted.began == message.sha256(server.start(replace(now, round=round)))


def test_what_is_no_state_is_refused():
    for data in (b"", server.start(state()), server.dumps(state())[:-1]):
        with pytest.raises(ValueError, match=r"safetensors|format"):
            server.loads(data)
