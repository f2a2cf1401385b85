"""The clipped sum equals the one-by-one sum by plain autograd, whatever the architecture, clip and micro-batches."""

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpcore.engine import layout
from dpcore.engine.errors import BatchShape, InexactGradient, UnseenParameter
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.rehearsal import require_exact
from dpcore.engine.rows import Rows
from dpcore.engine.tape import Gradients
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK
from dpcore.mechanism.clipping import AUTOMATIC_OFFSET, ClippedSum
from dpcore.rehearse import SLOWLY

from .architectures import ARCHITECTURES, TRAINING, Examples, alone, make
from .engine_rows import flat_rows, rows_of
from .error_table import ERRORS

RECORDS = 7
LENGTHS = (5, 10, 16)
"""Gram matrices for all weights, for some, for none."""
ONE_BY_ONE = {("t5", "full"), ("t5-untied", "full"), ("beit", "bitfit"), ("beit", "full")}
ONE_BY_ONE |= {("swin", training) for training in TRAINING}
"""What the fast engine refuses: T5 and BEiT look their distances up by a table [from, to] that has no examples in it,
and Swin has windows where others have examples."""


@pytest.fixture(autouse=True)
def _tiny_matrices_are_wide(monkeypatch):
    monkeypatch.setattr(layout, "THIN_SIDE", 4)


def examples_for(name, length, count=RECORDS):
    return Examples(count, length, kind=ARCHITECTURES[name].kind)


@cache
def expected_rows(name, training, length):
    """Gradients of the records one by one: by parameter, [RECORDS, *shape]."""
    model, examples = make(name, training), examples_for(name, length)
    return alone(model, lambda i: examples.losses(model, i), RECORDS)


def clip_norms(norms):
    """No record is clipped, some and not all are, all are."""
    found = {"never": 10 * norms.max(), "partly": norms.median(), "always": 0.5 * norms.min()}
    assert 0 < (norms > found["partly"]).sum() < len(norms)
    return [clip_norm.item() for clip_norm in found.values()]


def no_gradient(name):
    """Zero by mathematics: the softmax does not see what a key's bias adds to all of a query's scores."""
    return name.endswith(("key.bias", "k_lin.bias", "k_proj.bias")) and "qwen" not in name


@pytest.mark.sampled(16)
@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_clipped_sum_equals_the_one_by_one_oracle(name, training):
    slow = (name, training) in ONE_BY_ONE
    model = make(name, training)
    engine = OneByOne(model) if slow else PerExample(model)
    worst = 0.0
    for length in LENGTHS:
        examples = examples_for(name, length)
        by_name = expected_rows(name, training, length)
        if slow:
            with pytest.raises(SLOWLY, match=r"relative_(attention|position)_bias|the layer's input has shape"):
                PerExample(model).gradients(lambda e=examples: e.losses(model, np.arange(RECORDS)), RECORDS)
        rows = flat_rows(engine, by_name)
        # A gradient that is zero would hide its own loss.
        zero = {n for n, g in by_name.items() if g.norm() < 1e-12 * rows.norm()}
        assert not zero or all(map(no_gradient, zero)), zero
        norms = rows.norm(dim=1)
        for sizes in [[1] * 7] if slow else ([7], [3, 4], [1] * 7):
            totals = []
            for clip_norm in clip_norms(norms):
                for clipping in ("flat", "automatic"):
                    total = ClippedSum.zero(
                        engine.width, clip_norm=clip_norm, clipping=clipping, expected_batch=1, device=engine.device
                    )
                    flat = (clip_norm / norms).clamp(max=1)
                    scale = flat if clipping == "flat" else clip_norm / (norms + AUTOMATIC_OFFSET)
                    totals.append((total, scale @ rows))
            for part in np.split(np.arange(RECORDS), np.cumsum(sizes)[:-1]):
                gradients = engine.gradients(lambda part=part, e=examples: e.losses(model, part), len(part))
                for total, _ in totals:
                    total.add(gradients)
            for total, expected in totals:
                worst = max(worst, ((total.value - expected).norm() / expected.norm()).item())
    ERRORS[name, training] = worst, "*" * slow
    assert worst <= 1e-6


def test_oracle_covers_every_way_to_take_a_gradient():
    """Wide matrices by Gram matrices and as a whole, embeddings and a tied one: all of them are in the models above."""
    kinds = set()
    for name in ("bert", "gpt2"):
        model = make(name, "full")
        engine = PerExample(model)
        for length in LENGTHS:
            examples = examples_for(name, length, 2)
            gradients = engine.gradients(lambda e=examples, model=model: e.losses(model, np.arange(2)), 2)
            kinds |= {
                (part._whole is not None, bool(part._left), part._merged is not None)
                for _, part in gradients._wide.values()
            }
    whole, gram, embedding, tied = (True, False, False), (False, True, False), (False, False, True), (False, True, True)
    assert kinds == {whole, gram, embedding, tied}


@pytest.mark.parametrize(("name", "training"), [("bert", "lora"), ("bert", "full"), ("gpt2", "full")])
@pytest.mark.parametrize("length", LENGTHS)
def test_non_finite_record_contributes_zero_and_changes_nothing_else(name, training, length):
    model, examples = make(name, training), examples_for(name, length)
    engine = PerExample(model)
    for poison in (float("nan"), float("inf")):
        weight = torch.ones(RECORDS, dtype=torch.float64)
        weight[2] = poison
        total = ClippedSum.zero(engine.width, clip_norm=1.0, clipping="flat", expected_batch=1, device=engine.device)
        total.add(engine.gradients(lambda w=weight: examples.losses(model, np.arange(RECORDS)) * w, RECORDS))
        rows = flat_rows(engine, expected_rows(name, training, length))[[0, 1, 3, 4, 5, 6]]
        expected = (1 / rows.norm(dim=1)).clamp(max=1) @ rows
        assert (total.value - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize(
    ("name", "training"), [("bert", "lora"), ("bert", "full"), ("gpt2", "full"), ("llama", "full")]
)
@pytest.mark.parametrize("length", LENGTHS)
def test_float32_gradients_move_by_less_than_the_stated_slack_when_a_record_leaves(name, training, length):
    """The sensitivity's slack is 1e-6 C for every expected record: other records move by less than that."""
    model = make(name, training, dtype=torch.float32)
    examples = examples_for(name, length, 64)
    engine = PerExample(model)

    def clipped(indices):
        gradients = engine.gradients(lambda: examples.losses(model, indices), len(indices))
        return rows_of(gradients, engine, len(indices)) / gradients.norms()[:, None]

    whole, without = clipped(np.arange(64)), clipped(np.arange(1, 64))
    assert (whole[1:] - without).norm(dim=1).max() < ROUNDING_SLACK


def test_float32_norms_are_never_too_small():
    """Long vectors, and gradients whose outer products nearly cancel: a norm too small would be clipped too little."""
    flat = torch.rand(1, 2**23, generator=torch.Generator().manual_seed(0))
    assert Rows(flat).norms().double() >= flat.double().norm() * (1 - 1e-6)
    layer = nn.Linear(64, 64, bias=False)
    x = torch.randn(8, 1, 64, generator=torch.Generator().manual_seed(1)).repeat(1, 16, 1)
    x += 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    sign = torch.tensor([1.0, -1.0]).repeat(8)[None, :, None]
    engine = PerExample(layer)
    gradients = engine.gradients(lambda: (layer(x) * sign).sum((1, 2)), 8)
    assert next(iter(gradients._wide.values()))[1]._left, "by Gram matrices"
    exact = (sign.double() * x.double()).sum(1).norm(dim=1) * 8
    uncancelled = x.double().norm(dim=2).sum(1) * 8
    assert (exact < 1e-3 * uncancelled).all()
    assert (gradients.norms() >= exact).all()


def test_parameter_used_several_times_is_summed_exactly():
    """Shared layers write once and add after that."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.thin, self.gain = nn.Linear(6, 6), nn.Linear(6, 4), nn.Parameter(torch.ones(6))

        def forward(self, x):
            x = self.gain * torch.tanh(self.layer(torch.tanh(self.layer(x)))) * self.gain + self.gain
            return (self.thin(x) + self.thin(x.square())).pow(2).sum((1, 2))

    model = Shared().double()
    engine = PerExample(model)
    for tokens in (1, 2, 5):  # of two uses each; 6 x 6 weights change over at 3
        x = torch.randn(4, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        gradients = engine.gradients(lambda x=x: model(x), 4)
        expected = flat_rows(engine, alone(model, lambda i, x=x: model(x[i]), 4))
        torch.testing.assert_close(rows_of(gradients, engine, 4), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradients.norms(), expected.norm(dim=1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("side", [4, 0])
@pytest.mark.parametrize("columns", [3, 9])
def test_embedding_norms(monkeypatch, side, columns):
    """A token that is looked up twice has one row; padding has no gradient; ids may be the same for all records."""
    monkeypatch.setattr(layout, "THIN_SIDE", side)
    table = nn.Embedding(12, columns, padding_idx=0).double()
    ids = torch.tensor([[1, 1, 5, 0], [2, 0, 2, 2], [3, 4, 5, 6]])
    weights = torch.randn(3, 4, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    engine = PerExample(table)

    def losses(i):
        again = F.embedding(ids[i], table.weight, padding_idx=-12)  # counted from the end
        return ((table(ids[i]) + table(ids[:1] + 1) + again) * weights[i]).sum((1, 2))

    gradients = engine.gradients(lambda: losses(np.arange(3)), 3)
    expected = alone(table, losses, 3)["weight"].flatten(1)
    torch.testing.assert_close(rows_of(gradients, engine, 3), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients.norms(), expected.norm(dim=1), rtol=1e-9, atol=0)


def test_convolutions_of_any_shape():
    """Sides, strides, padding and dilation that all differ; the second one's input has a gradient of its own."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        nn.Tanh(),
        nn.Conv2d(3, 2, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        nn.Tanh(),
        nn.Flatten(),
    ).double()
    x = torch.randn(4, 2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    engine = PerExample(model)
    gradients = engine.gradients(lambda: model(x).square().sum(1), 4)
    expected = flat_rows(engine, alone(model, lambda i: model(x[i]).square().sum(1), 4))
    torch.testing.assert_close(rows_of(gradients, engine, 4), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("trained", [("weight", "bias"), ("bias",), ("weight",)])
def test_layer_norms_over_two_dimensions_and_with_a_part_frozen(trained):
    layer = nn.LayerNorm((3, 5)).double()
    for name, p in layer.named_parameters():
        nn.init.normal_(p)
        p.requires_grad_(name in trained)
    x = torch.randn(4, 2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    engine = PerExample(layer)
    gradients = engine.gradients(lambda: layer(x).square().sum((1, 2, 3)), 4)
    expected = flat_rows(engine, alone(layer, lambda i: layer(x[i]).square().sum((1, 2, 3)), 4))
    torch.testing.assert_close(rows_of(gradients, engine, 4), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("other", [{"padding": "same"}, {"groups": 2, "padding": "same"}])
def test_convolutions_that_no_handler_knows_are_named(other):
    layer = nn.Conv2d(2, 2, 3, **other)
    with pytest.raises(UnseenParameter, match="weight"):
        PerExample(layer).gradients(lambda: layer(torch.ones(3, 2, 5, 5)).sum((1, 2, 3)), 3)


def test_model_is_left_as_it_was():
    model, examples = make("gpt2", "full"), examples_for("gpt2", 9, 6)
    before = {n: p.clone() for n, p in model.named_parameters()}
    losses = examples.losses(model, np.arange(6))
    PerExample(model).gradients(lambda: examples.losses(model, np.arange(6)), 6)
    assert all(torch.equal(before[n], p) and p.grad is None for n, p in model.named_parameters())
    assert torch.equal(losses, examples.losses(model, np.arange(6)))


def test_frozen_layers_keep_no_input_when_only_their_bias_trains():
    """That is what makes it cheap: of a wide layer's input nothing is saved for the backward pass."""
    for trained in (True, False):
        layer, kept = nn.Linear(8, 8), []
        layer.weight.requires_grad_(trained)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.shape) or t, lambda t: t):
            PerExample(layer).gradients(lambda layer=layer: layer(torch.ones(3, 5, 8)).sum((1, 2)), 3)
        assert (torch.Size([3, 5, 8]) in kept) == trained


def test_autograd_computes_no_weight_gradient_itself():
    """No product of the size of a whole micro-batch's weight gradient is computed in the backward pass."""
    model, examples = make("gpt2", "full"), examples_for("gpt2", 9, 6)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        PerExample(model).gradients(lambda: examples.losses(model, np.arange(6)), 6)
    shapes = [event.input_shapes for event in profile.events() if event.name == "aten::mm"]
    assert shapes
    assert not [pair for pair in shapes if len(pair) >= 2 and pair[0] and pair[0][-1] == 6 * 9]


@pytest.mark.parametrize("use", ["bare product", "power", "einsum", "loop in place", "scaled", "a row for each"])
def test_unseen_use_of_a_trainable_parameter_is_an_error_that_names_it(use):
    """Even beside a seen use: the seen part alone would be wrong."""
    layer = nn.Linear(3, 3)
    x = torch.ones(2, 3)
    uses = {
        "bare product": lambda: x @ layer.weight,
        "power": lambda: x @ layer.weight.square(),
        "einsum": lambda: torch.einsum("bi,oi->bo", x, layer.weight),
        "loop in place": lambda: x.clone().mul_(layer.weight[0]),
        "scaled": lambda: torch.addmm(layer.bias, x, layer.weight, alpha=2),
        "a row for each": lambda: x * layer.weight[:2],
    }
    with pytest.raises(UnseenParameter, match="weight"):
        PerExample(layer).gradients(lambda: layer(x).sum(1) + uses[use]().sum(1), 2)


@pytest.mark.parametrize("how", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_embedding_that_scales_by_what_others_look_up_is_an_error(how):
    table = nn.Embedding(5, 3, **how)
    with pytest.raises(UnseenParameter, match="weight"):
        PerExample(table).gradients(lambda: table(torch.tensor([[1], [2]])).sum((1, 2)), 2)


def test_parameter_without_a_gradient_is_an_error():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 1), nn.Linear(3, 1)

    model = Unused()
    with pytest.raises(UnseenParameter, match="idle"):
        PerExample(model).gradients(lambda: model.used(torch.ones(2, 3)).squeeze(1), 2)


@pytest.mark.parametrize("kind", ["linear", "norm", "gain", "embedding"])
def test_examples_must_be_in_the_first_dimension(kind):
    layer = {"linear": nn.Linear(3, 3), "norm": nn.LayerNorm(3), "gain": nn.RMSNorm(3), "embedding": nn.Embedding(9, 3)}
    layer = layer[kind]
    x = torch.arange(8) if kind == "embedding" else torch.ones(8, 3)
    run = (lambda: x * layer.weight) if kind == "gain" else (lambda: layer(x))
    with pytest.raises(BatchShape, match="weight"):
        PerExample(layer).gradients(lambda: run().view(2, 4, 3).sum((1, 2)), 2)


def test_channels_are_no_examples():
    layer = nn.Conv2d(2, 2, 1)
    with pytest.raises(BatchShape, match="weight"):
        PerExample(layer).gradients(lambda: layer(torch.ones(2, 4, 4)).sum((1, 2)), 2)


def test_losses_must_be_one_for_each_example():
    layer = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="one loss for each of 2"):
        PerExample(layer).gradients(lambda: F.mse_loss(layer(torch.ones(2, 3)), torch.zeros(2, 1)), 2)


class Flattens(nn.Module):
    """Lays tokens out one after the other for torch.addmm, example by example or token by token."""

    def __init__(self, *, tokens_first: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.zeros(5))
        self.tokens_first = tokens_first

    def forward(self, x):
        x = x.transpose(0, 1) if self.tokens_first else x
        y = torch.addmm(self.bias, x.reshape(-1, 6), self.weight).view(*x.shape[:2], 5)
        return torch.tanh(y).square().sum((0 if self.tokens_first else 1, 2))


class Mixes(nn.Module):
    """Looks at the other examples of the batch, as batch norm does; or at the first one alone, which is then right."""

    def __init__(self, *, first: bool = False) -> None:
        super().__init__()
        self.layer, self.first = nn.Linear(6, 5), first

    def forward(self, x):
        y = self.layer(x)
        return torch.tanh(y - (0.5 * y[:1].detach() if self.first else y.mean(0))).square().sum((1, 2))


def check(model, x):
    require_exact(PerExample(model), model, lambda i: model(x[i]), len(x))


def test_rehearsal_refuses_what_only_the_numbers_show(monkeypatch):
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    check(Flattens(tokens_first=False), x)
    with pytest.raises(InexactGradient, match="weight"):
        check(Flattens(tokens_first=True), x)
    for first in (True, False):
        with pytest.raises(InexactGradient):
            check(Mixes(first=first), x)
    with pytest.raises(InexactGradient, match="nothing can be compared"):
        check(Flattens(tokens_first=False), x * float("nan"))


@pytest.mark.parametrize(
    ("factor", "exact"), [(1 - 1e-7, True), (0.9999, False), (0.99, False), (1.005, True), (1.02, False)]
)
def test_rehearsal_refuses_norms_that_are_not_the_gradients(monkeypatch, factor, exact):
    """Too small beyond rounding, which is a sensitivity violation, or so large that the signal is lost."""
    norms = Gradients.norms
    monkeypatch.setattr(Gradients, "norms", lambda self: norms(self) * factor)
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    with nullcontext() if exact else pytest.raises(InexactGradient, match="the norm of an example's gradient"):
        check(Flattens(tokens_first=False), x)


def test_rehearsal_leaves_dropout_as_it_was():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 1))
    model[0].eval()
    check(nn.Sequential(model, nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0)), torch.randn(3, 4, 6))
    assert [m.training for m in model] == [False, True, True]
