"""What a method trains, on models of many types: its default fits, and each record's gradient is its own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.rows import Rows
from dpcore.engine.tape import Gradients
from dpcore.methods import get_trainer
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import get_method

from . import zoo

RECORDS = 3
ADAPTED = (
    "albert",
    "bert",
    "deberta",
    "deberta-v2",
    "electra",
    "funnel",
    "modernbert",
    "mpnet",
    "roberta",
    "t5",
    "xlnet",
)
WRITERS = (
    *("bloom", "falcon", "gemma", "gpt2", "gpt_neo", "gpt_neox", "llama", "mamba", "mistral", "mpt", "opt"),
    *("opt-narrow", "phi3", "qwen2", "qwen3", "rwkv"),
)
CASES = [
    *((name, "classification") for name in (*ADAPTED, *WRITERS) if name not in ("mamba", "rwkv")),
    *((name, "completion") for name in WRITERS),
]
SAMPLE = {("mamba", "completion"), ("phi3", "completion"), ("mpnet", "classification"), ("deberta", "classification")}
EVERY = [pytest.param(*case, marks=[] if case in SAMPLE else pytest.mark.verify) for case in CASES]


def losses(model: nn.Module, task: str, indices: np.ndarray) -> Tensor:
    """One for each record."""
    ids = zoo.step_ids(RECORDS)[torch.from_numpy(indices)]
    mask = torch.ones_like(ids)
    if task == "classification":
        labels = torch.from_numpy(indices % 3)
        return F.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels, reduction="none")
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


def attached(name: str, task: str, method: str = "lora", **options: object) -> nn.Module:
    """In float64, each trained value away from its start."""
    model = get_trainer(method).attach(zoo.build(name, task), options, task=task, seed=3).double()
    generator = torch.Generator().manual_seed(5)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


def assert_each_record_s_own(model: nn.Module, task: str) -> None:
    """By the fast engine, or the slow one where that knows a use not, against plain autograd."""
    everyone = np.arange(RECORDS)
    try:
        engine: PerExample | OneByOne = PerExample(model)
        together = engine.gradients(lambda: losses(model, task, everyone), RECORDS)
        rows = [_row(engine, together, i) for i in everyone]
    except RuntimeError:
        engine = OneByOne(model)
        rows = [_row(engine, engine.gradients(lambda i=i: losses(model, task, everyone[[i]]), 1), 0) for i in everyone]
    for i, row in enumerate(rows):
        parts = torch.autograd.grad(losses(model, task, everyone[[i]])[0], list(engine.parameters.values()))
        own = torch.cat([part.flatten() for part in parts])
        assert own.norm() > 0
        assert (row - own).norm() <= 1e-5 * own.norm()


def _row(engine: PerExample | OneByOne, gradients: Gradients | Rows, i: int) -> Tensor:
    total, factors = torch.zeros(engine.width, dtype=torch.float64), torch.zeros_like(gradients.norms())
    factors[i] = 1
    gradients.add_weighted(total, factors)
    return total


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_lora_s_default_fits_and_each_record_s_gradient_is_its_own(name, task):
    model = attached(name, task, r=2)
    adapted = [n for n, p in model.named_parameters() if ".lora_A." in n and p.requires_grad]
    assert adapted
    if task == "classification" and name != "albert":  # its layers are one
        assert all(".1." in n for n in adapted), "the upper half"
    assert not any("lm_head" in n for n in adapted)
    if name not in ("deberta", "funnel", "t5", "xlnet"):
        assert_each_record_s_own(model, task)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "gpt2", "llama", "qwen3", "data2vec-text"])
def test_the_default_of_the_usual_types_is_query_and_value(name):
    model = attached(name, "classification", r=2)
    leaves = {n.split(".lora_A.")[0].rsplit(".", 1)[1] for n, _ in model.named_parameters() if ".lora_A." in n}
    assert leaves in ({"query", "value"}, {"q_lin", "v_lin"}, {"c_attn"}, {"q_proj", "v_proj"})
    assert sum(".lora_A." in n for n, _ in model.named_parameters()) == len(leaves)


@pytest.mark.parametrize(
    ("name", "task"),
    [("bert", "classification"), ("roberta", "classification"), ("gpt2", "completion"), ("gpt_neox", "completion")],
)
def test_all_linear_means_all_but_the_head(name, task):
    """As PEFT means it; a classifier's head trains whole anyway."""
    base = zoo.build(name, task)
    head = base.get_output_embeddings() if task == "completion" else None
    inside = (
        base.named_modules() if task == "completion" else base.base_model.named_modules(prefix=base.base_model_prefix)
    )
    wanted = {n for n, m in inside if isinstance(m, nn.Linear | Conv1D) and m is not head}
    model = attached(name, task, target_modules="all-linear", r=2)
    got = {
        n.split(".lora_A.")[0].removeprefix("base_model.model.") for n, _ in model.named_parameters() if ".lora_A." in n
    }
    assert got == wanted
    assert_each_record_s_own(model, task)


def test_one_name_may_stand_alone():
    one, listed = (attached("bert", "classification", target_modules=names) for names in ("key", ["key"]))
    assert [n for n, _ in one.named_parameters()] == [n for n, _ in listed.named_parameters()]
    assert one.peft_config["default"].target_modules == {"key"}


def test_a_name_that_the_head_shares_means_the_base_s_layers(tmp_path):
    """RoBERTa's head has a layer called dense, which trains whole."""
    model = attached("roberta", "classification", target_modules=["dense"])
    assert not any("classifier" in n for n, _ in model.named_parameters() if ".lora_" in n)
    assert any("attention.output.dense.lora_A" in n for n, _ in model.named_parameters())
    for asked in ("classifier", "out_proj", "qurey", "word_embeddings"):
        with pytest.raises(ValueError, match=f"no linear layer is called {asked}; there are: dense, key, query, value"):
            attached("roberta", "classification", target_modules=asked)


@pytest.mark.parametrize("name", ["gpt2", "mamba", "gpt_neox", "llama"])
def test_a_head_that_is_the_embedding_is_not_adapted(tmp_path, name):
    """Merged, the update would change both; what the API knows of the folder says the same."""
    spec = get_method("lora")
    asked = spec.Options(target_modules="lm_head")
    for tied in (True, False):
        zoo.save(name, "completion", tmp_path / str(tied), tie_word_embeddings=tied)
        facts = read_facts(tmp_path / str(tied))
        base = zoo.build(name, "completion", tie_word_embeddings=tied)
        if tied:
            with pytest.raises(ValueError, match="one matrix"):
                get_trainer("lora").attach(base, asked.model_dump(), task="completion", seed=0)
            if facts.linear is not None:
                with pytest.raises(FieldError, match="one matrix") as caught:
                    spec.check(asked, facts, "completion")
                assert caught.value.field == "target_modules"
        else:
            spec.check(asked, facts, "completion")
            get_trainer("lora").attach(base, asked.model_dump(), task="completion", seed=0)


@pytest.mark.parametrize("method", ["lora", "lora-fa"])
@pytest.mark.parametrize("target", ["auto", "all-linear"])
@pytest.mark.parametrize(
    ("name", "task"), [("bert", "pair"), ("phi3", "text"), ("mpnet", "pair"), ("gpt_neox", "text"), ("mamba", "text")]
)
def test_the_formula_counts_what_the_default_trains(tmp_path, name, task, target, method):
    task = "completion" if task == "text" else "classification"
    zoo.save(name, task, tmp_path)
    spec, labels = get_method(method), 3 if task == "classification" else 0
    options = spec.Options(r=4, target_modules=target)
    said = spec.trainable(options, read_facts(tmp_path), labels=labels, task=task)
    model = get_trainer(method).attach(zoo.build(name, task), options.model_dump(), task=task, seed=0)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0.4 < said / trained < 2.5


UNUSED = {
    ("big_bird", "classification"): {"bert.pooler"},
    ("esm", "classification"): {"esm.contact_head"},
    ("roformer", "classification"): {"roformer.encoder.embed_positions"},
    ("xlnet", "classification"): {
        "transformer.mask_emb",
        "transformer.layer.0.rel_attn",
        "transformer.layer.1.rel_attn",
    },
    ("luke", "classification"): {"luke.entity_embeddings", "luke.encoder.layer.0.attention"},
    ("canine", "classification"): {"canine.projection", "canine.final_char_encoder"},
    ("bart", "classification"): set(),
    ("bert", "classification"): set(),
    ("bart", "completion"): {"model.decoder.layers.0.encoder_attn"},
}


@pytest.mark.parametrize("method", ["full", "bitfit"])
@pytest.mark.parametrize(("name", "task"), UNUSED)
def test_what_no_loss_reaches_is_frozen_and_the_rest_trains(name, task, method):
    """Told by the graph: with every weight at zero nothing more is frozen, though all gradients vanish."""
    model = get_trainer(method).attach(zoo.build(name, task), {}, task=task, seed=0)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    parts = torch.autograd.grad(
        losses(model, task, np.array([1])).sum(), [model.get_parameter(n) for n in trained], allow_unused=True
    )
    assert all(part is not None for part in parts)
    zero = zoo.build(name, task)
    with torch.no_grad():
        for p in zero.parameters():
            p.zero_()
    zero = get_trainer(method).attach(zero, {}, task=task, seed=0)
    assert {n for n, p in zero.named_parameters() if p.requires_grad} == trained
    if method == "full":
        frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
        assert all(any(n.startswith(part) for n in frozen) for part in UNUSED[name, task])
        assert bool(frozen) == bool(UNUSED[name, task])


def test_looking_for_what_is_unused_draws_nothing():
    torch.manual_seed(4)
    before = torch.get_rng_state()
    model = attached("bert", "classification", dropout=0.5)
    assert any(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_does_not_run_on_a_short_record_is_left_to_the_rehearsal():
    """Nystromformer takes one length alone."""
    model = zoo.build("bert", "classification")

    def forward(**inputs: object) -> None:
        raise RuntimeError("of another length")

    model.forward = forward
    get_trainer("full").attach(model, {}, task="classification", seed=0)
    assert all(p.requires_grad for p in model.parameters())
