"""A model whose path depends on the length is compared at the length that it trains at: exact there, slow, or refused."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcore.engine.errors import InexactGradient, MixedExamples, UnseenParameter
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.wide import Wide, most_tokens
from dpcore.terms.speed import Speed

from .test_train import Host, make_program

LONGEST, WIDTH, RECORDS = 80, 6, 9


class Padded:
    """Records [n, LONGEST, WIDTH], of which `lengths` are looked at."""

    def __init__(self, count: int, length: int) -> None:
        self.x = torch.randn(count, LONGEST, WIDTH, generator=torch.Generator().manual_seed(count))
        self.lengths = np.full(count, length)

    def __len__(self) -> int:
        return len(self.x)


class Squares:
    """A task whose losses the model gives."""

    max_length = LONGEST

    def __init__(self) -> None:
        self.sizes: set[int] = set()

    def losses(self, model: nn.Module, records: Padded, indices: np.ndarray, length: int) -> Tensor:
        if len(records) == RECORDS:
            self.sizes.add(len(indices))
        return model(records.x[indices, :length])

    def synthetic(self, count: int, length: int) -> Padded:
        return Padded(count, length)


class Chunked(nn.Module):
    """A linear layer that is used in another way when there are more tokens than the first comparison has."""

    def __init__(self, way: str, *, above: int = 32, below: int = LONGEST + 1) -> None:
        super().__init__()
        self.inner, self.way, self.lengths = nn.Linear(WIDTH, WIDTH), way, range(above + 1, below)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        way = self.way if x.shape[1] in self.lengths else "short"
        weight, bias = self.inner.weight, self.inner.bias
        if way == "batch":
            y = self.inner(x)
            y = y - 0.5 * y.mean(0)
        elif way == "tokens first":
            flat = x.transpose(0, 1).reshape(-1, WIDTH)
            y = torch.addmm(bias, flat, weight).view(x.shape[1], len(x), WIDTH).transpose(0, 1)
        elif way == "windows":
            y = self.inner(x.view(len(x), -1, 4, WIDTH)).flatten(1, 2)
        elif way == "einsum":
            y = torch.einsum("mti,oi->mto", x, weight) + bias
        elif way == "table":
            y = x * self.inner(torch.linspace(-1, 1, x.shape[1] * WIDTH).view(-1, WIDTH))
        elif way == "constant":
            y = x * bias
        else:
            if way == "memory":
                self.seen.add_(1)
            y = self.inner(x)
        return torch.tanh(y).square().sum((1, 2))


def run(way: str, *, tokens: int, above: int = 32) -> tuple[Squares, Host]:
    task, host = Squares(), Host()
    program = make_program(max_length=LONGEST, sample_rate=1.0, expected_batch=RECORDS, steps=1)
    try:
        host.run(Chunked(way, above=above), task, Padded(RECORDS, LONGEST), program, speed=Speed(tokens=tokens))
    except Exception:
        assert host.asked == [], "nothing was authorised"
        raise
    return task, host


@pytest.mark.parametrize("tokens", [10_000, LONGEST], ids=["two fit", "one fits"])
@pytest.mark.parametrize(
    ("way", "error", "named"),
    [
        ("batch", InexactGradient, "inner"),
        ("tokens first", InexactGradient, r"inner\.weight"),
        ("memory", MixedExamples, "seen"),
        ("constant", UnseenParameter, r"inner\.weight"),
    ],
)
def test_a_model_that_is_wrong_for_long_records_alone_is_refused_by_name(way, error, named, tokens):
    """Also where only one record of that length fits: two are compared at the largest length at which two do."""
    run("short", tokens=tokens)
    with pytest.raises(error, match=named):
        run(way, tokens=tokens)


def test_a_record_that_fits_only_alone_is_compared_alone():
    with pytest.raises(MixedExamples, match="seen"):
        run("memory", tokens=LONGEST, above=LONGEST // 2)


@pytest.mark.parametrize(("way", "most"), [("windows", RECORDS), ("einsum", 1), ("table", 1)])
def test_a_model_that_is_right_for_long_records_trains(way, most):
    """At speed where the engine knows the use, which the first comparison did not see; else one record at a time."""
    task, host = run(way, tokens=10_000)
    assert (task.sizes, len(host.saved)) == ({most}, 1)


def test_the_engines_own_change_of_path_is_compared(monkeypatch):
    """Wide matrices: by Gram matrices where tokens are few, as a whole where they are many; here that is broken."""

    class Broad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(128, 128)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.inner(x.repeat(1, 1, 22)[..., :128])).square().sum((1, 2))

    assert 32 < most_tokens(128, 128) < LONGEST
    add_whole, program = Wide.add_whole, make_program(max_length=LONGEST)
    monkeypatch.setattr(Wide, "add_whole", lambda self, gradients: add_whole(self, 1.01 * gradients))
    with pytest.raises(InexactGradient, match=r"inner\.weight"):
        Host().run(Broad(), Squares(), Padded(RECORDS, LONGEST), program, speed=Speed(tokens=10_000))


@pytest.mark.parametrize(("way", "error"), [("windows", None), ("tokens first", InexactGradient)])
def test_a_path_that_only_lengths_in_between_take_is_compared_too(way, error):
    """Every length that a record may be padded to, whichever of them the file has."""
    host = Host()
    with nullcontext() if error is None else pytest.raises(error, match=r"inner.*padded to \d+ tokens"):
        program, records = make_program(max_length=LONGEST, sample_rate=1.0), Padded(RECORDS, LONGEST)
        host.run(Chunked(way, below=LONGEST), Squares(), records, program, speed=Speed(tokens=10_000))
    assert bool(host.asked) == (error is None)


def test_the_slow_engine_is_asked_at_both_lengths_before_anything_is_authorised(monkeypatch):
    """A parameter that long records alone use must not end a run at the first short record."""

    class OnlyLong(Chunked):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + self.late.square().sum() if x.shape[1] > 32 else y

    model, host, lengths, original = OnlyLong("einsum"), Host(), [], OneByOne.gradients
    model.late = nn.Parameter(torch.ones(3))
    monkeypatch.setattr(OneByOne, "gradients", lambda self, *a: lengths.append(1) or original(self, *a))
    with pytest.raises(UnseenParameter, match="late"):
        host.run(
            model, Squares(), Padded(RECORDS, LONGEST), make_program(max_length=LONGEST), speed=Speed(tokens=10_000)
        )
    assert (lengths, host.asked) == ([1], [])
