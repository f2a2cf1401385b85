"""The side network: exact gradients, a model beside it that keeps nothing, and what it starts from."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2ForSequenceClassification
from transformers.modeling_outputs import BaseModelOutput

from dpcore.engine.per_example import PerExample
from dpcore.engine.rehearsal import require_exact
from dpcore.export import About
from dpcore.mechanism.clipping import ClippedSum
from dpcore.methods import get_trainer, load_export
from dpcore.methods.side import network
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method

from . import zoo
from .architectures import Examples, alone
from .conftest import BASES
from .test_methods import assert_each_record_s_own

RECORDS, LENGTH = 7, 10


def kind(name: str) -> str:
    return "completion" if name.endswith("-lm") else "classification"


@pytest.fixture
def make_side(make_base):
    """A model with a side network; its Up and head are not zero, which would hide every other gradient."""

    def make(name: str, *, layers: int = 2, dtype: torch.dtype = torch.float64, awake: bool = True):
        base = make_base(name, layers=layers)
        model = get_trainer("side").attach(base, {}, task=kind(name), seed=3).to(dtype)
        generator = torch.Generator().manual_seed(5)
        for p in model.parameters():
            if p.requires_grad and awake:
                p.data += 0.2 * torch.randn(p.shape, generator=generator, dtype=dtype)
        return model, Examples(RECORDS, LENGTH, kind="classifier" if kind(name) == "classification" else "causal")

    return make


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("name", BASES)
def test_clipped_sum_equals_the_one_by_one_oracle(make_side, name, clipping):
    model, examples = make_side(name)
    by_name = alone(model, lambda i: examples.losses(model, i), RECORDS)
    assert all((rows.reshape(RECORDS, -1).norm(dim=1) > 1e-6).any() for rows in by_name.values())
    assert all(p.grad is None for p in model.parameters())
    engine = PerExample(model)
    require_exact(engine, model, lambda i: examples.losses(model, i), RECORDS)
    rows = torch.cat([by_name[parameter].reshape(RECORDS, -1) for parameter in engine.parameters], dim=1)
    norms = rows.norm(dim=1)
    clip_norm = norms.median().item()
    scale = (clip_norm / norms).clamp(max=1) if clipping == "flat" else clip_norm / (norms + 0.01)
    for sizes in ([7], [3, 4]):
        total = ClippedSum.zero(
            engine.width, clip_norm=clip_norm, clipping=clipping, expected_batch=1, device=engine.device
        )
        for part in np.split(np.arange(RECORDS), np.cumsum(sizes)[:-1]):
            total.add(engine.gradients(lambda part=part: examples.losses(model, part), len(part)))
        assert (total.value - scale @ rows).norm() <= 1e-6 * (scale @ rows).norm()


@pytest.mark.parametrize("name", BASES)
def test_nothing_of_the_frozen_model_is_kept(make_side, name):
    """But what the ladder reads, each layer's output: 3 x 16 numbers a token here, and 11 x 2 x 16 of the ladder's own."""
    model, examples = make_side(name)
    (side,) = [m for m in model.modules() if isinstance(m, network.SideNetwork)]
    kept: list[torch.Tensor] = []
    count: list[int] = []
    side.frozen.register_forward_pre_hook(lambda *_: count.append(len(kept)))
    side.frozen.register_forward_hook(lambda *_: count.append(len(kept)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        losses = examples.losses(model, np.arange(RECORDS))
    assert count[0] == count[1], "nothing is saved while the frozen model runs"
    losses.sum().backward()
    assert all(p.grad is None for p in side.frozen.parameters())
    assert not any(t.shape[-2:] == (LENGTH, LENGTH) for t in kept), "no T x T matrix"
    logits = RECORDS * (LENGTH - 1) * 70 * 8
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in kept)}
    ours = sum(size for place, size in storages.items() if place not in weights and size < logits)
    assert ours <= 1.1 * RECORDS * LENGTH * 16 * (3 + 11 * 2) * 8


@pytest.mark.parametrize("name", BASES)
def test_a_record_depends_on_itself_alone(make_side, name):
    """Neither on its padding nor on the others; and a language model's token not on those after it."""
    model, examples = make_side(name)
    with torch.no_grad():
        together = examples.losses(model, np.arange(RECORDS))
        ids, mask = examples.ids[1:2], examples.mask[1:2]
        real = int(mask.sum())
        assert real < LENGTH
        longer = torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
        for i in range(RECORDS):
            torch.testing.assert_close(examples.losses(model, np.array([i])), together[i : i + 1])
        padded, whole = (model(input_ids=a, attention_mask=b).logits for a, b in (longer, (ids, mask)))
        if kind(name) == "classification":
            torch.testing.assert_close(padded, whole)
            return
        torch.testing.assert_close(padded[:, :real], whole[:, :real])
        changed = ids.clone()
        changed[:, 5] += 1
        after = model(input_ids=changed, attention_mask=mask).logits
        torch.testing.assert_close(after[:, :5], whole[:, :5])
        assert (after[:, 5] - whole[:, 5]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["gpt2-lm", "llama-lm"])
def test_a_language_model_starts_as_its_base_and_writes(make_base, make_side, name):
    ids = torch.tensor([[3, 4, 5, 6]])
    base = make_base(name, layers=2, dtype=torch.float64)
    fresh, _ = make_side(name, awake=False)
    torch.testing.assert_close(fresh(input_ids=ids).logits, base(input_ids=ids).logits, rtol=0, atol=0)

    def write(model, ids, mask):
        return model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0)

    model, _ = make_side(name)
    written = write(model, ids, torch.ones_like(ids))
    for i in range(4, 9):  # each token is the likeliest one after all before it
        assert written[0, i] == model(input_ids=written[:, :i]).logits[0, -1].argmax()
    # A batch is padded on the left to go on from, and the padding is not looked at.
    left = torch.nn.functional.pad(ids, (3, 0)), torch.nn.functional.pad(torch.ones_like(ids), (3, 0))
    assert torch.equal(write(model, *left)[0, 3:], written[0])
    with pytest.raises(ValueError, match="use_cache"):
        model.generate(input_ids=ids, max_new_tokens=2, use_cache=True, pad_token_id=0)


def test_a_decoders_own_head_is_left_behind(make_base):
    model = get_trainer("side").attach(make_base("gpt2"), {}, task="classification", seed=0)
    assert not any(isinstance(m, GPT2ForSequenceClassification) for m in model.modules())
    assert not any(n.endswith("score.weight") for n, _ in model.named_parameters())


@pytest.mark.parametrize("reduction", [1, 4, 8])
@pytest.mark.parametrize("name", ["bert", "gpt2-lm"])
def test_the_formula_counts_the_trainable_values(make_base, name, reduction):
    """From public sizes alone, before there is a model."""
    base = make_base(name, layers=2)
    config = base.config
    shape = SimpleNamespace(hidden_size=config.hidden_size, layers=config.num_hidden_layers)
    spec, labels = get_method("side"), 0 if kind(name) == "completion" else 3
    options = spec.Options(reduction=reduction)
    model = get_trainer("side").attach(base, options.model_dump(), task=kind(name), seed=0)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == spec.trainable(options, shape, labels=labels, task=kind(name))


def test_memory_grows_with_length_as_the_layers_outputs_do():
    """A quarter of a backward pass through the model, and less, for a model of twelve layers."""
    facts = ModelFacts(
        model_type="bert",
        hidden_size=768,
        intermediate_size=3072,
        layers=12,
        heads=12,
        vocab_size=30_000,
        max_positions=512,
    )
    side, lora = get_method("side"), get_method("lora")
    assert side.Options().width(768) == 96
    assert (side.Options().width(576), side.Options(reduction=64).width(384)) == (80, 16)
    for length in (128, 512):
        needs = [s.memory(s.Options(), facts, max_length=length, labels=2, task="pair") for s in (side, lora)]
        weights = 4 * facts.parameters
        assert needs[0] - weights < (needs[1] - weights) / 2.5


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *((name, "completion") for name in ("opt", "opt-narrow", "mamba", "rwkv", "bloom")),
        *((name, "classification") for name in ("opt", "opt-narrow", "xlnet", "deberta-v2", "longformer")),
    ],
)
def test_other_types_of_models_have_one_too(tmp_path, name, task):
    """OPT's head reads its decoder and not the base model; Mamba and RWKV put out what they remember."""
    base = zoo.build(name, task)
    before = base(input_ids=zoo.step_ids(), use_cache=False).logits if task == "completion" else None
    model = get_trainer("side").attach(base, {}, task=task, seed=3)
    if before is not None:
        torch.testing.assert_close(model(input_ids=zoo.step_ids()).logits, before)
    about = About("example/tiny", "0" * 64, "side", task, ("a", "b", "c") if task == "classification" else (), 16)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5))
    get_trainer("side").export(model, tmp_path / "export", about)
    zoo.build(name, task).save_pretrained(tmp_path / "base")
    loaded, _ = load_export(tmp_path / "export", tmp_path / "base")
    ids = zoo.step_ids()
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    if name != "xlnet":
        assert_each_record_s_own(model.double(), task)


@pytest.mark.parametrize("name", ["bart", "t5", "funnel", "canine"])
def test_a_model_whose_layers_cannot_be_read_is_refused(name):
    with pytest.raises(ValueError, match=r"a side network (needs|reads)"):
        get_trainer("side").attach(zoo.build(name, "classification"), {}, task="classification", seed=3)


class Asked(TorchDispatchMode):
    """The operations that answer a question about values."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["gpt2-lm", "llama-lm", "gpt2"])
def test_the_network_asks_a_batch_nothing(make_side, monkeypatch, name):
    """Whether any record is padded, for one: another kernel would compute the others."""
    model, examples = make_side(name)
    (side,) = [m for m in model.modules() if isinstance(m, network.SideNetwork)]
    frozen = side.frozen(examples.ids, attention_mask=examples.mask, output_hidden_states=True)
    monkeypatch.setattr(side.frozen, "forward", lambda *_, **__: frozen)  # what the base model asks is its own
    traces = []
    for mask in (examples.mask, torch.ones_like(examples.mask)):
        with Asked() as asked:
            side(examples.ids, attention_mask=mask)
        traces.append(asked.seen)
    assert traces[0] == traces[1]
    assert not traces[0] & {"_local_scalar_dense", "is_nonzero", "any", "all", "item", "nonzero", "amax", "max"}


@pytest.mark.parametrize("name", ["gpt2-lm", "llama-lm"])
def test_padding_on_the_left_is_not_looked_at(make_side, name):
    """Nor in the middle; and the places stay the tokens' own."""
    model, _ = make_side(name)
    (side,) = [m for m in model.modules() if isinstance(m, network.SideNetwork)]
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(2, 6, 16, dtype=torch.float64, generator=generator) for _ in side.down]
    side.frozen.forward = lambda *_, **__: BaseModelOutput(last_hidden_state=given[-1], hidden_states=tuple(given))
    ids = torch.ones(2, 6, dtype=torch.int64)
    out = side(ids, attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0]])).last_hidden_state
    for row, real in ((0, [2, 3, 4, 5]), (1, [0, 1, 3, 4])):
        alone = [hidden[row : row + 1, real] for hidden in given]
        side.frozen.forward = lambda *_, a=alone, **__: BaseModelOutput(last_hidden_state=a[-1], hidden_states=tuple(a))
        for mask in (None, ids[:1, :4]):
            torch.testing.assert_close(side(ids[:1, :4], attention_mask=mask).last_hidden_state[0], out[row, real])
