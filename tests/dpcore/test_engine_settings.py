"""The engine under what surrounds a model: gradient checkpointing, autocast, dropout, attention, shapes that coincide."""

import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from dpcore.engine import layout
from dpcore.engine.errors import BatchShape, MixedExamples
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.rehearsal import require_exact
from dpcore.mechanism.clipping import ClippedSum

from .architectures import ARCHITECTURES, Examples, alone, make
from .engine_rows import flat_rows, rows_of

COUNT, LENGTH = 5, 9
CELLS = [("bert", "full"), ("gpt2", "full"), ("vit", "full"), ("qwen3", "full"), ("albert", "lora"), ("t5", "lora")]


@pytest.fixture(autouse=True)
def _tiny_matrices_are_wide(monkeypatch):
    monkeypatch.setattr(layout, "THIN_SIDE", 4)


def examples_for(name):
    return Examples(COUNT, LENGTH, kind=ARCHITECTURES[name].kind)


def rows_by(engine, model, examples, seed=0):
    """The engine's rows and norms; whatever is drawn in the forward pass follows from the seed."""
    torch.manual_seed(seed)
    gradients = engine.gradients(lambda: examples.losses(model, np.arange(COUNT)), COUNT)
    with torch.autocast("cpu", enabled=False):
        return rows_of(gradients, engine, COUNT), gradients.norms()


def joint_rows(engine, model, examples, seed=0):
    """Each record's gradient by plain autograd out of one forward pass of all."""
    torch.manual_seed(seed)
    losses = examples.losses(model, np.arange(COUNT))
    parameters = list(engine.parameters.values())
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


CHECKPOINTED = [cell for cell in CELLS if cell[0] != "albert"]


@pytest.mark.parametrize("thread", ["same", "another"])
@pytest.mark.parametrize(("name", "training"), CHECKPOINTED)
def test_gradient_checkpointing_changes_nothing(monkeypatch, name, training, thread):
    """Also where the backward pass runs on a thread of its own, as on CUDA; with dropout, whose masks are replayed."""
    model, examples = make(name, training, dropout=0.3).train(), examples_for(name)
    engine, calls = PerExample(model), []
    for layer in (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)):
        for module in layer.modules():
            module.register_forward_pre_hook(lambda module, _: calls.append(module))
    expected, norms = rows_by(engine, model, examples)
    once = len(calls)
    other, _ = rows_by(engine, model, examples, seed=1)
    assert (other - expected).norm() > 0.01 * expected.norm(), "dropout is on"
    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": engine.recomputing})
    if thread == "another":
        monkeypatch.setattr(torch.autograd, "backward", partial(in_another_thread, torch.autograd.backward))
    again, norms_again = rows_by(engine, model, examples)
    assert len(calls) > 3.5 * once, "layers ran twice"
    torch.testing.assert_close(again, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(norms_again, norms, rtol=1e-12, atol=0)


def in_another_thread(function, *args):
    errors = []

    def run():
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize(("name", "training"), CELLS)
def test_dropout_falls_for_each_example(name, training):
    """Every example's gradient is that of its own loss with its own mask."""
    model, examples = make(name, training, dropout=0.3).train(), examples_for(name)
    engine = PerExample(model)
    rows, norms = rows_by(engine, model, examples)
    expected = joint_rows(engine, model, examples)
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(norms, expected.norm(dim=1), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "training"), CELLS)
def test_autocast_keeps_norms_and_sums_in_float32(name, training):
    """The same types as torch's own pass, values within bfloat16's digits, and norms exactly those of the rows."""
    model, examples = make(name, training, dtype=torch.float32), examples_for(name)
    engine = PerExample(model)
    exact, _ = rows_by(engine, model, examples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows, norms = rows_by(engine, model, examples)
        plain = joint_rows(engine, model, examples).double()
        # T5's bfloat16 rounds otherwise when checkpointed, by torch alone too: 1.5 % of the gradient.
        if (name, training) in CHECKPOINTED and name != "t5":
            model.train().gradient_checkpointing_enable({"use_reentrant": False, "context_fn": engine.recomputing})
            again, _ = rows_by(engine, model, examples)
            torch.testing.assert_close(again, rows, rtol=1e-5, atol=1e-7)
    assert norms.dtype == torch.float32
    torch.testing.assert_close(norms.double(), rows.norm(dim=1), rtol=1e-4, atol=0)
    for found in (rows, plain):
        assert 0 < (found - exact).norm() < 0.05 * exact.norm()
    assert (rows - plain).norm() < 0.02 * exact.norm()
    assert all(p.grad is None for p in model.parameters())


def test_layers_under_autocast_give_what_torch_gives():
    """Bit for bit, type for type."""
    x = torch.randn(COUNT, 3, 8, 8)
    layers = [nn.Linear(8, 8), nn.LayerNorm(8), nn.RMSNorm(8), nn.Conv2d(3, 4, 2, stride=2)]
    for layer in layers:
        for p in layer.parameters():
            nn.init.normal_(p)
        for value in (x, x.bfloat16(), x.double()):
            layer.to(torch.promote_types(value.dtype, torch.float32))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = [layer(value)]

                def losses(layer=layer, value=value, outputs=outputs):
                    outputs.append(layer(value))
                    return outputs[-1].float().square().flatten(1).sum(1)

                PerExample(layer).gradients(losses, COUNT)
            torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)


def test_tokens_are_summed_in_float32_under_autocast():
    """bfloat16 knows no 257."""
    layer = nn.Linear(2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients = PerExample(layer).gradients(lambda: layer(torch.zeros(3, 257, 2)).sum((1, 2)), 3)
    assert gradients.norms().tolist() == [257.0] * 3


@pytest.mark.parametrize(("name", "training"), [*CELLS, ("llama", "full"), ("roberta", "full")])
def test_every_attention_gives_the_same(name, training):
    rows = {}
    for attention in ("eager", "sdpa"):
        model, examples = make(name, training, attention=attention), examples_for(name)
        engine = PerExample(model)
        rows[attention], _ = rows_by(engine, model, examples)
        expected = flat_rows(engine, alone(model, lambda i, e=examples, m=model: e.losses(m, i), COUNT))
        torch.testing.assert_close(rows[attention], expected, rtol=1e-9, atol=1e-12)
    # One of them takes the softmax in float32.
    assert (rows["eager"] - rows["sdpa"]).norm() < 1e-5 * rows["sdpa"].norm()


@pytest.mark.parametrize(("name", "training"), [("bert", "full"), ("gpt2", "full"), ("vit", "full"), ("t5", "lora")])
def test_removing_one_record_moves_the_sum_by_at_most_the_clip_norm(name, training):
    model, examples = make(name, training, dtype=torch.float32), examples_for(name)
    engine = PerExample(model)

    def total(indices):
        found = ClippedSum.zero(
            engine.width, clip_norm=0.1, clipping="flat", expected_batch=COUNT, device=engine.device
        )
        found.add(engine.gradients(lambda: examples.losses(model, indices), len(indices)))
        return found

    whole = total(np.arange(COUNT))
    for left_out in range(COUNT):
        moved = (whole.value - total(np.delete(np.arange(COUNT), left_out)).value).norm().item()
        assert 0.09 < moved <= whole.sensitivity


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "t5"])
def test_trained_model_generates(name):
    """Nothing of the engine stays in the model."""
    model, examples = make(name, "lora"), examples_for(name)
    before = model.generate(input_ids=examples.ids[:2], max_new_tokens=3, do_sample=False)
    rows_by(PerExample(model), model, examples)
    assert torch.equal(before, model.generate(input_ids=examples.ids[:2], max_new_tokens=3, do_sample=False))


class Coincides(nn.Module):
    """Uses of a parameter that no example takes part in, [T, ...], which are [m, ...] where T happens to be m."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.other = {
            "embedding": nn.Embedding(20, 6),
            "linear": nn.Linear(6, 6),
            "norm": nn.LayerNorm(6),
            "rms_norm": nn.RMSNorm(6),
            "conv": nn.Conv2d(1, 1, 1),
            "addmm": nn.Linear(6, 6),
            "product": nn.RMSNorm(6),
            "copies": nn.RMSNorm(6),
        }[use]
        self.use = use

    def forward(self, x):
        t = x.shape[1]
        table = torch.linspace(-1, 1, t * 6, dtype=x.dtype).view(t, 6) ** 3
        weight = self.other.weight
        shared = {
            "embedding": lambda: self.other(torch.arange(t)[:, None] + torch.arange(t)[None]).sum(1),
            "linear": lambda: self.other(table),
            "norm": lambda: self.other(table),
            "rms_norm": lambda: self.other(table),
            "conv": lambda: self.other(table[:, None, None])[:, 0, 0],
            "addmm": lambda: torch.addmm(self.other.bias, table, weight),
            "product": lambda: weight * table,
            "copies": lambda: weight.expand(t, 6) * table,
        }[self.use]()
        return torch.tanh(self.layer(x) * shared).square().sum((1, 2))


@pytest.mark.parametrize("use", ["embedding", "linear", "norm", "rms_norm", "conv", "addmm", "product", "copies"])
def test_shape_that_coincides_with_the_number_of_examples_is_found_before_training(use):
    """A model is trained fast only if every use has the examples first where their number stands for nothing else."""
    model = Coincides(use).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 7, 6, dtype=torch.float64, generator=generator)
    with pytest.raises(BatchShape):
        require_exact(PerExample(model), model, lambda i: model(x[i]), 3)


@pytest.mark.parametrize("use", ["batched", "shared"])
def test_a_use_that_the_rehearsal_did_not_see_is_an_error(use):
    """A path that only some lengths take: windows come before examples, and may be as many."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            if x.shape[1] > 8:
                windows = x.view(len(x), -1, 4, 6)
                y = self.layer(windows.transpose(0, 1) if use == "shared" else windows)
                y = y.transpose(0, 1) if use == "shared" else y
                return torch.tanh(y).square().sum((1, 2, 3))
            return torch.tanh(self.layer(x)).square().sum((1, 2))

    model = Windows()
    x = torch.randn(3, 8, 6)
    engine = PerExample(model)
    assert not require_exact(engine, model, lambda i: model(x[i]), 1), "one record tells no layout"
    engine.expect(require_exact(engine, model, lambda i: model(x[i]), 3))
    engine.gradients(lambda: model(torch.randn(5, 6, 6)), 5)
    with pytest.raises(BatchShape, match=r"layer\.weight"):
        engine.gradients(lambda: model(torch.randn(3, 12, 6)), 3)


def test_models_in_which_records_meet_are_refused_by_name():
    x = torch.randn(3, 4, 6)

    def check(*layers, mode=True):
        model = nn.Sequential(nn.Linear(6, 4), *layers, nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0)).train(mode)
        model(x)
        require_exact(PerExample(model), model, lambda i: model(x[i]), 3)

    check(nn.LayerNorm(4))
    with pytest.raises(MixedExamples, match=r"1: a batch norm"):
        check(nn.BatchNorm1d(4))
    with pytest.raises(MixedExamples, match=r"1: a batch norm"):
        check(nn.BatchNorm1d(4, track_running_stats=False), mode=False)
    with pytest.raises(MixedExamples, match=r"1.running_mean"):
        check(nn.InstanceNorm1d(4, track_running_stats=True))
    with pytest.raises(MixedExamples, match=r"1.seen"):
        check(Remembers())
    config = MixtralConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    experts, examples = MixtralForCausalLM(config), Examples(3, LENGTH, kind="causal")
    with pytest.raises(MixedExamples, match="experts = 2: in a mixture of experts"):
        require_exact(PerExample(experts), experts, lambda i: examples.losses(experts, i), 3)
    part = nn.Linear(6, 1)
    part.config = SimpleNamespace(text_config=SimpleNamespace(num_local_experts=2))
    with pytest.raises(MixedExamples, match="experts = 2"):
        require_exact(PerExample(part), part, lambda i: part(x[i, 0]).squeeze(1), 3)


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + 1
        return x


def test_fallback_takes_one_record_at_a_time():
    layer = nn.Linear(3, 1)
    engine = OneByOne(layer)
    x = torch.ones(2, 3)
    rows = engine.gradients(lambda: (x[:1] @ layer.weight.T + layer.bias).squeeze(1), 1)
    assert rows.norms().item() == pytest.approx(2.0)
    with pytest.raises(ValueError, match="one example"):
        engine.gradients(lambda: layer(x[:1]).squeeze(1), 2)
    with pytest.raises(ValueError, match="one loss"):
        engine.gradients(lambda: F.mse_loss(layer(x), x[:, :1]), 1)
