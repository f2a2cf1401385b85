"""The reversible network: exact gradients from layers that are undone, memory that hardly grows with depth, and a gate."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpcore.engine.errors import InexactGradient
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.rehearsal import require_exact
from dpcore.machine.token_budget import kept_bytes
from dpcore.mechanism.clipping import ClippedSum, by_module
from dpcore.methods import get_trainer
from dpcore.methods.reversible import gate, network
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method
from dpcore.terms.speed import Speed

from . import zoo
from .architectures import Examples, alone
from .conftest import BASES
from .test_train import Host, equal, make_program, secret, trained

RECORDS, LENGTH = 7, 10
SHAPES = ("bert", "gpt2", "llama", "gpt2-lm", "llama-lm")
C = network.COUPLING


def kind(name: str) -> str:
    return "completion" if name.endswith("-lm") else "classification"


@pytest.fixture
def make_reversible(make_base):
    """A model in a reversible network; its adapters are not zero, which would hide their first halves' gradients."""

    def make(name: str, *, layers: int = 4, dtype: torch.dtype = torch.float64, awake: bool = True, **options):
        model = get_trainer("reversible").attach(make_base(name, layers=layers), options, task=kind(name), seed=3)
        generator = torch.Generator().manual_seed(5)
        for p in model.parameters():
            if p.requires_grad and awake:
                p.data += 0.2 * torch.randn(p.shape, generator=generator)
        return model.to(dtype)

    return make


@pytest.fixture
def examples():
    return lambda name: Examples(RECORDS, LENGTH, kind="classifier" if kind(name) == "classification" else "causal")


def coupled(model: nn.Module) -> list[network.Coupled]:
    return [module for module in model.modules() if isinstance(module, network.Coupled)]


def written_out(self, hidden_states, *args, **kwargs):
    """The recurrence as its docstring says it, in floating point, with nothing but autograd."""
    before = None if self.first else self.passes.before
    self.passes.before = hidden_states
    made = self.layer(hidden_states, *args, **kwargs)
    out = made[0] if isinstance(made, tuple) else made
    change = self.up(F.relu(self.down(F.layer_norm(hidden_states, hidden_states.shape[-1:]))))
    return out + change + (0 if before is None else C * (before - hidden_states))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_plain_autograd_s_of_the_recurrence_record_by_record(
    make_reversible, examples, monkeypatch, name
):
    """By both engines, cut in two ways, under each clipping; and one record's removal moves a sum by C at most."""
    model, records = make_reversible(name), examples(name)
    engines = PerExample(model), OneByOne(model)
    with monkeypatch.context() as patch:
        patch.setattr(network.Coupled, "forward", written_out)
        by_name = alone(model, lambda i: records.losses(model, i), RECORDS)
    assert all((rows.reshape(RECORDS, -1).norm(dim=1) > 1e-6).any() for rows in by_name.values())
    require_exact(engines[0], model, lambda i: records.losses(model, i), RECORDS)
    rows = torch.cat([by_name[n].reshape(RECORDS, -1) for n in engines[0].parameters], dim=1)
    norms, groups = rows.norm(dim=1), by_module(engines[0].parameters)
    clip_norm = norms.median().item()
    parts = [torch.cat([rows[:, place] for place in places], dim=1) for places in groups]
    each = clip_norm / len(groups) ** 0.5

    def expected(clipping: str, kept: np.ndarray) -> torch.Tensor:
        if clipping != "per-layer":
            scale = (clip_norm / norms).clamp(max=1) if clipping == "flat" else clip_norm / (norms + 0.01)
            return scale[kept] @ rows[kept]
        out = torch.zeros(rows.shape[1], dtype=torch.float64)
        for places, part in zip(groups, parts, strict=True):
            scale = (each / part.norm(dim=1)).clamp(max=1)
            for place in places:
                out[place] = scale[kept] @ rows[kept, place]
        return out

    everyone = np.arange(RECORDS)
    for clipping in ("flat", "automatic", "per-layer"):
        for engine, sizes in ((engines[0], [7]), (engines[0], [3, 4]), (engines[1], [1] * 7)):
            zero = partial(
                ClippedSum.zero, engine.width, clip_norm=clip_norm, clipping=clipping, expected_batch=1, groups=groups
            )
            total, fewer = zero(device=engine.device), zero(device=engine.device)
            for part in np.split(everyone, np.cumsum(sizes)[:-1]):
                total.add(engine.gradients(lambda part=part: records.losses(model, part), len(part)))
                if len(part := part[part != 2]):
                    fewer.add(engine.gradients(lambda part=part: records.losses(model, part), len(part)))
            wanted = expected(clipping, everyone)
            assert (total.value - wanted).norm() <= 1e-9 * wanted.norm(), (clipping, sizes)
            assert (total.value - fewer.value).norm() <= clip_norm * (1 + 1e-9)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["bert", "gpt2-lm", "llama-lm"])
def test_a_layer_is_undone_to_the_bit(make_reversible, examples, monkeypatch, name):
    """Of twelve layers in float32, after weights have moved, every state is found again as it was."""
    model, records = make_reversible(name, layers=12, dtype=torch.float32), examples(name)
    there, back = [], []
    forward, undo = network.advance, network.undo

    def advance(layer, states, added):
        there.append(states.grid)
        return forward(layer, states, added)

    def undone(states, added, lost):
        undo(states, added, lost)
        back.append(states.grid)

    monkeypatch.setattr(network, "advance", advance)
    monkeypatch.setattr(network, "undo", undone)
    records.losses(model, np.arange(RECORDS)).sum().backward()
    assert len(there) == len(back) + 1 == len(coupled(model)) >= 6
    for before, after in zip(there[1:], reversed(back), strict=True):  # nothing is needed from before the first
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["bert", "gpt2-lm", "llama-lm"])
def test_what_is_kept_hardly_grows_with_depth(make_reversible, make_base, name):
    """From six layers to twelve at most 15 % of what LoRA keeps more, gradients of records left out."""
    records = Examples(RECORDS, 24, kind="classifier" if kind(name) == "classification" else "causal")

    def kept(model: nn.Module) -> int:
        weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
        return kept_bytes(lambda: records.losses(model, np.arange(RECORDS))) - sum(weights.values())

    def of_lora(layers: int) -> nn.Module:
        base = make_base(name, layers=layers, dtype=torch.float32)
        names = ["query", "value"] if name == "bert" else ["c_attn"] if name == "gpt2-lm" else ["q_proj", "v_proj"]
        return get_trainer("lora").attach(base, {"target_modules": names}, task=kind(name), seed=0)

    models = [make_reversible(name, layers=layers, dtype=torch.float32) for layers in (6, 12)]
    mine, plain = [kept(model) for model in models], [kept(of_lora(layers)) for layers in (6, 12)]
    more = len(coupled(models[1])) - len(coupled(models[0]))
    assert mine[1] - mine[0] <= more * RECORDS * 24 * 16, "a byte a number"
    assert mine[1] - mine[0] <= 0.15 * (plain[1] - plain[0])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["bert", "gpt2-lm", "llama-lm"])
def test_the_gate_refuses_a_network_that_does_not_hold_and_says_why(make_reversible, monkeypatch, name):
    """Without the bits that a shift loses an error grows by 256 a layer: a few layers hold, many do not."""
    few, many = make_reversible(name, layers=2), make_reversible(name, layers=26)
    gate.require_held(many, kind(name))
    undo = network.undo
    monkeypatch.setattr(network, "undo", lambda s, added, lost: undo(s, added, 0 * lost))
    gate.require_held(few, kind(name))
    with pytest.raises(
        InexactGradient, match=r"(13|26) coupled layers\) .*coupled by 0.00390625.*cosine.*take lora or side"
    ):
        gate.require_held(many, kind(name))
    with pytest.raises(ValueError, match="take lora or side"):
        make_reversible(name, layers=26)


def test_the_gate_tries_moved_weights_states_off_the_grid_and_half_precision(make_reversible, make_base):
    """A layer that gives something else the second time once its adapter is there; a state beyond the grid."""
    model = make_reversible("bert", awake=False)
    (*_, last) = coupled(model)
    layer, calls = last.layer.forward, []

    def drifting(*args, **kwargs):
        calls.append(1)
        return layer(*args, **kwargs) + 30 * last.up.weight.norm() * (len(calls) % 3)

    last.layer.forward = drifting
    with pytest.raises(InexactGradient, match=r"moved by (0.01|0.1|1) of their size"):
        gate.require_held(model, "classification")
    base = make_base("gpt2-lm", layers=2)
    base.transformer.wte.weight.data *= 1e8
    with pytest.raises(
        ValueError, match=r"GPT2LMHeadModel, 2 coupled layers\) as it is has states up to .*lora or side"
    ):
        get_trainer("reversible").attach(base, {}, task="completion", seed=0)
    with pytest.raises(ValueError, match="float32"):
        get_trainer("reversible").attach(make_base("bert", dtype=torch.bfloat16), {}, task="classification", seed=0)


def test_the_gate_looks_at_each_tensor_behind_a_head_s_gradient(make_reversible, monkeypatch):
    model = make_reversible("bert", awake=False)
    assert gate.compare(model, "classification", 0.0).exact
    undo = network.undo
    monkeypatch.setattr(network, "undo", lambda s, added, lost: undo(s, 1.1 * added, lost))
    assert not gate.compare(model, "classification", 0.0).exact


def test_a_run_asks_the_gate_before_it_asks_for_a_step(make_reversible, make_records, task, monkeypatch):
    model, host = make_reversible("bert", dtype=torch.float32), Host()
    undo = network.undo
    monkeypatch.setattr(network, "undo", lambda s, added, lost: undo(s, 1.1 * added, lost))
    begin = partial(get_trainer("reversible").begin, task="classification")
    with pytest.raises(InexactGradient, match="reversible"):
        host.run(model, task, make_records(20), make_program(steps=1), begin=begin)
    assert host.asked == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("unit", ["record", "user"])
@pytest.mark.parametrize("clipping", ["flat", "automatic", "per-layer"])
def test_draws_noise_and_gradients_know_nothing_of_torch_s_generator(
    make_reversible, make_records, task, unit, clipping
):
    """Nor do they move it, though dropout is asked for; checkpointed layers inside change nothing."""
    results, records = [], make_records(24)
    owners = np.arange(24) % 6 if unit == "user" else None
    for seed in (1, 2):
        model = make_reversible("bert", dtype=torch.float32)
        for layer in coupled(model):
            layer.train()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        program = make_program(steps=2, unit=unit, clipping=clipping, expected_batch=3)
        begin = partial(get_trainer("reversible").begin, task="classification")
        speed = Speed(recompute=seed == 2)
        Host().run(model, task, records, program, owners=owners, streams=secret(), begin=begin, speed=speed)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(trained(model))
    assert equal(*results)


def test_dropout_never_falls_in_a_layer_that_is_computed_twice(make_reversible, examples):
    model, records = make_reversible("gpt2-lm").train(), examples("gpt2-lm")
    assert not any(module.training for layer in coupled(model) for module in layer.modules())
    model.transformer.drop.eval()  # the embeddings' own
    first, second = (records.losses(model, np.arange(RECORDS)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_record_that_is_not_finite_is_so_for_its_own_sum_alone(make_reversible, examples):
    """Integers know no NaN: it would come out as a number, and be trained on."""
    model, records = make_reversible("bert"), examples("bert")
    layer = coupled(model)[0].layer
    hook = layer.register_forward_hook(lambda _, __, out: out.index_fill(0, torch.tensor([2]), torch.nan))
    engine = PerExample(model)
    norms = engine.gradients(lambda: records.losses(model, np.arange(RECORDS)), RECORDS).norms().clone()
    hook.remove()
    whole = engine.gradients(lambda: records.losses(model, np.arange(RECORDS)), RECORDS).norms()
    others = [i for i in range(RECORDS) if i != 2]
    assert not norms[2].isfinite()
    torch.testing.assert_close(norms[others], whole[others])


@pytest.mark.parametrize("name", BASES)
def test_it_starts_near_its_base(make_base, examples, monkeypatch, name):
    """Nearer than an uncentred coupling does."""
    base, records = make_base(name, layers=8), examples(name)
    before = base(input_ids=records.ids, attention_mask=records.mask).logits
    model = get_trainer("reversible").attach(base, {}, task=kind(name), seed=3)

    @torch.no_grad()
    def off() -> float:
        logits = model(input_ids=records.ids, attention_mask=records.mask).logits
        return float((logits - before).norm() / before.norm())

    centred = off()

    def uncentred(self, hidden_states, *args, **kwargs):
        before = 0 if self.first else self.passes.before
        self.passes.before = hidden_states
        return self.layer(hidden_states, *args, **kwargs) + C * before

    monkeypatch.setattr(network.Coupled, "forward", uncentred)
    assert centred < 0.01
    assert centred < off()


@pytest.mark.parametrize("name", ["gpt2-lm", "llama-lm"])
def test_a_language_model_writes_with_a_cache_and_without_the_same(make_reversible, name):
    model, ids = make_reversible(name, dtype=torch.float32), torch.tensor([[3, 4, 5, 6]])
    written = [
        model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=0, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*written)
    for i in range(4, 10):
        assert written[0][0, i] == model(input_ids=written[0][:, :i]).logits[0, -1].argmax()


@pytest.mark.parametrize("name", ["gpt2-lm", "llama-lm"])
def test_a_cache_is_not_filled_twice(make_reversible, name):
    model, ids = make_reversible(name), torch.tensor([[3, 4, 5, 6]])
    gradients = []
    for cached in (True, False):
        loss = model(input_ids=ids, use_cache=cached).logits.logsumexp(-1).sum()
        gradients.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_backward_pass_in_a_thread_of_its_own_is_intercepted_too(make_reversible, examples, monkeypatch):
    """As on a GPU; the thread has none of the modes of the one that ran the forward pass."""
    model, records, found = make_reversible("bert"), examples("bert"), []
    backward = torch.autograd.backward

    def elsewhere(loss):
        with ThreadPoolExecutor(1) as other:
            other.submit(backward, loss).result()

    for way in (backward, elsewhere):
        monkeypatch.setattr(torch.autograd, "backward", way)
        engine = PerExample(model)
        found.append(engine.gradients(lambda: records.losses(model, np.arange(RECORDS)), RECORDS).thin.clone())
    assert torch.equal(*found)


def test_a_model_that_does_more_with_a_state_than_its_layers_do_is_refused(make_reversible, examples):
    records = examples("gpt2-lm")

    def losses(model):
        return records.losses(model, np.arange(RECORDS))

    model = make_reversible("gpt2-lm")
    coupled(model)[2].register_forward_pre_hook(lambda _, args: (args[0] + 1, *args[1:]))
    with pytest.raises(ValueError, match="does nothing between its layers; take lora or side"):
        losses(model)
    model, first = make_reversible("gpt2-lm"), []
    coupled(model)[0].register_forward_hook(lambda _, __, out: first.append(out))
    coupled(model)[2].register_forward_pre_hook(
        lambda _, args, kwargs: (args, kwargs | {"early": first[-1]}), with_kwargs=True
    )
    with pytest.raises(ValueError, match="read one state each; take lora or side"):
        losses(model)


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("name", ["bert", "gpt2-lm"])
def test_the_formula_counts_the_trainable_values(make_base, name, width):
    """From public sizes alone, before there is a model."""
    spec, labels = get_method("reversible"), 0 if kind(name) == "completion" else 3
    facts = ModelFacts(
        model_type=name, hidden_size=16, intermediate_size=32, layers=5, heads=2, vocab_size=70, max_positions=32
    )
    model = get_trainer("reversible").attach(make_base(name, layers=5), {"width": width}, task=kind(name), seed=0)
    said = spec.trainable(spec.Options(width=width), facts, labels=labels, task=kind(name))
    assert said == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_memory_is_flat_in_depth_by_its_formula_too():
    """Beside the weights, from 12 layers to 24: at most 15 % of LoRA's growth, adapters' gradients included."""
    sizes = {"model_type": "bert", "hidden_size": 768, "intermediate_size": 3072, "heads": 12}
    grown = []
    for name in ("reversible", "lora"):
        spec, needs = get_method(name), []
        for layers in (12, 24):
            facts = ModelFacts(**sizes, layers=layers, vocab_size=30_000, max_positions=512)
            asked = {"max_length": 128, "labels": 2, "task": "pair"}
            needs.append(spec.memory(spec.Options(), facts, **asked) - 4 * facts.parameters)
        grown.append(needs[1] - needs[0])
    assert grown[0] <= 0.15 * grown[1]


@pytest.mark.parametrize(
    ("name", "words"),
    [("bart", "one list"), ("t5", "one list"), ("albert", "one list"), ("funnel", "cannot be run"), ("xlnet", "")],
)
def test_other_models_hold_or_are_refused_with_words(name, words):
    """An encoder with a decoder, layers that are one, layers that pool; XLNet, whose layers give tuples, is one list."""
    base = zoo.build(name, "classification")
    if not words:
        get_trainer("reversible").attach(base, {}, task="classification", seed=3)
        return
    with pytest.raises(ValueError, match=f"reversible network .*{words}.*take lora or side"):
        get_trainer("reversible").attach(base, {}, task="classification", seed=3)
