"""What public values decide fails before anything is paid: tokens and padding, lengths, kinds of number, moved weights."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from dpcore.engine.errors import HalfPrecision, InexactGradient, LooksAhead, NotTrainable, OutsideTable, Unrunnable
from dpcore.engine.rehearsal import MOST_SLACK, moved
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK
from dpcore.mechanism.clipping import ClippedSum
from dpcore.tasks import make_task
from dpcore.terms.speed import Speed

from . import zoo
from .conftest import LABELS, MAX_LENGTH
from .test_rehearsal import LONGEST, RECORDS, WIDTH, Padded, Squares
from .test_train import Host, make_program


def refused(host: Host, error: type[NotTrainable], words: str, *args: object, **more: object) -> None:
    with pytest.raises(error, match=words):
        host.run(*args, **more)
    assert (host.asked, host.saved) == ([], [])


@pytest.mark.parametrize("token", [-1, 70, 10_000])
def test_padding_outside_the_table_is_refused(make_model, make_records, task, token) -> None:
    model = make_model()
    model.config.pad_token_id = token
    words = rf"pad_token_id\) is number {token}, and the model's table of embeddings has 70 rows"
    refused(Host(), OutsideTable, words, model, task, make_records(8), make_program())


def test_a_word_that_the_table_does_not_have_is_refused(make_model, make_records, tokenizer) -> None:
    tokenizer.add_tokens([f"new{i}" for i in range(40)])
    task = make_task("classification", tokenizer, labels=LABELS, max_length=MAX_LENGTH)
    words = rf"largest token is number {len(tokenizer) - 1}, .* 70 rows, 0 to 69"
    refused(Host(), OutsideTable, words, make_model(), task, make_records(8), make_program())


def test_stand_ins_hold_the_largest_token_and_what_stands_around_a_text(tokenizer, writer_tokenizer) -> None:
    task = make_task("classification", tokenizer, labels=LABELS, max_length=MAX_LENGTH)
    records = task.mixed(3, MAX_LENGTH)
    assert records.lengths.tolist() == [MAX_LENGTH, MAX_LENGTH // 2 + 1, 2]
    first = records.tokens[:MAX_LENGTH].tolist()
    assert (first[0], first[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert max(first) == len(tokenizer) - 1
    assert not {*first[1:-1]} & {*tokenizer.all_special_ids}, "text that spells a special token is text"
    written = make_task("text", writer_tokenizer, max_length=MAX_LENGTH).mixed(3, MAX_LENGTH)
    assert (written.lengths[-1], written.tokens.max()) == (1, max(writer_tokenizer.get_vocab().values()))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frozen", [True, False])
def test_half_precision_is_refused_by_the_name_of_the_weight(make_model, make_records, task, kind, frozen) -> None:
    model = make_model()
    name, weight = next((n, p) for n, p in model.named_parameters() if p.requires_grad != frozen)
    weight.data = weight.data.to(kind)
    refused(
        Host(),
        HalfPrecision,
        rf"{name} is {str(kind).removeprefix('torch.')}: load the model in float32",
        model,
        task,
        make_records(8),
        make_program(),
    )


class Layer(nn.Module):
    """A linear layer, and what is made of it."""

    def __init__(self, function: Callable[["Layer", Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.gate, self.function = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.zeros(())), function

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.inner(x)) * (1 + self.gate)
        return self.function(self, y).square().sum((1, 2))


def neighbour(y: Tensor) -> Tensor:
    """Each record's next one: in no operation does it show that they meet."""
    return y[(torch.arange(len(y)) + 1) % len(y)]


def no_batch(layer: Layer, y: Tensor) -> Tensor:
    if len(y) > 1:
        raise RuntimeError("one at a time, please")
    return y


def raises_at(length: int) -> Callable[[Layer, Tensor], Tensor]:
    def function(layer: Layer, y: Tensor) -> Tensor:
        if y.shape[1] == length:
            raise IndexError(f"no place for {length}")
        return y

    return function


def go(host: Host, function: Callable[[Layer, Tensor], Tensor]) -> Squares:
    torch.manual_seed(0)
    task, program = Squares(), make_program(max_length=LONGEST, sample_rate=1.0, expected_batch=RECORDS, steps=1)
    host.run(Layer(function), task, Padded(RECORDS, LONGEST), program, speed=Speed(tokens=10_000))
    return task


def test_records_that_meet_only_once_weights_have_moved_are_found() -> None:
    host = Host()
    with pytest.raises(InexactGradient, match=r"not each example's own: gate"):
        go(host, lambda layer, y: y + layer.gate.square() * neighbour(y))
    assert host.asked == []


@pytest.mark.parametrize(
    "function", [lambda _, y: y + 1e-5 * neighbour(y), no_batch], ids=["beyond the slack", "raises"]
)
def test_what_cannot_be_told_apart_in_a_batch_is_trained_one_at_a_time(function) -> None:
    host = Host()
    assert go(host, function).sizes == {1}
    assert go(Host(), lambda _, y: y).sizes == {RECORDS}
    assert len(host.saved) == 1


def test_rounding_that_was_seen_is_claimed_twice_and_noised_for(monkeypatch) -> None:
    claimed, zero = [], ClippedSum.zero
    monkeypatch.setattr(
        ClippedSum, "zero", lambda *a, rounding, **k: claimed.append(rounding) or zero(*a, rounding=rounding, **k)
    )
    assert go(Host(), lambda _, y: y).sizes == {RECORDS}
    assert claimed[-1] == ROUNDING_SLACK
    assert go(Host(), lambda _, y: y + 1e-6 * neighbour(y)).sizes == {RECORDS}
    assert 1.5 * ROUNDING_SLACK < claimed[-1] < MOST_SLACK


@pytest.mark.parametrize("length", [1, 16, LONGEST])
def test_a_length_that_cannot_be_run_is_named(length) -> None:
    host = Host()
    with pytest.raises(Unrunnable, match=f"records padded to {length} tokens cannot be run: IndexError: no place"):
        go(host, raises_at(length))
    assert host.asked == []


def test_moved_weights_come_back_to_the_bit() -> None:
    layer = nn.Linear(3, 3)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    seeds = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), moved(dict(layer.named_parameters()), 1.0):
        assert all(not torch.equal(before[name], p) for name, p in layer.named_parameters())
        raise ZeroDivisionError
    assert all(torch.equal(before[name], p) for name, p in layer.named_parameters())
    assert torch.equal(torch.random.get_rng_state(), seeds)


@pytest.mark.parametrize("name", ["xlnet", "gpt2", "mamba"])
def test_a_language_model_that_looks_ahead_is_refused(name) -> None:
    """XLNet, without a mask of its own kind, sees the words that it is to write."""
    task = make_task("text", zoo.tokenizer(name, "completion"), max_length=16)
    with pytest.raises(LooksAhead, match="no causal language model") if name == "xlnet" else nullcontext():
        task.require_fit(zoo.build(name, "completion"))
