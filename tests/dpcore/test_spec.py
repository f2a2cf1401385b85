"""Programs and what is said about methods: public numbers, checked, without torch."""

import json
import subprocess
import sys
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from dpcore.methods import get_trainer
from dpcore.terms.errors import FieldError
from dpcore.terms.estimators import FirstOrder, ZerothOrder
from dpcore.terms.facts import ModelFacts, read_facts
from dpcore.terms.mechanisms import Gaussian, PoissonGaussian, Whole
from dpcore.terms.methods import UnknownMethod, get_method, method_names
from dpcore.terms.program import Phase, Program
from dpcore.terms.speed import Speed
from dpcore.terms.tasks import TaskKind
from tests.kinds import WRONG_KIND, candidates

from . import zoo
from .architectures import ARCHITECTURES
from .conftest import takes_steps
from .test_train import make_program

FACTS = ModelFacts(
    model_type="bert", hidden_size=384, intermediate_size=1536, layers=6, heads=12, vocab_size=30522, max_positions=512
)
METHODS = ("bitfit", "full", "lora", "lora-fa")
GPT2 = FACTS.model_copy(update={"model_type": "gpt2", "causal_lm": True})


def test_spec_loads_without_torch():
    code = (
        "import sys, dpcore.terms.program, dpcore.terms.methods as m; [m.get_method(n) for n in m.method_names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"sample_rate": float("nan")},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("inf")},
        {"steps": 0},
        {"clip_norm": 0.0},
        {"clip_norm": float("inf")},
        {"clipping": "none"},
        {"expected_batch": 0},
        {"unit": "batch"},
        {"relation": "replace_one"},
        {"learning_rate": float("nan")},
        {"betas": (0.9, 1.0)},
        {"optimizer": "adagrad"},
        {"weight_averaging": 1.0},
        {"weight_averaging": -0.1},
        {"noise": 1.0},
        {"estimator": ZerothOrder(directions=2), "optimizer": "adam-bc"},
        {"estimator": ZerothOrder(directions=2), "clipping": "per-layer"},
    ],
)
def test_a_program_refuses_what_would_void_the_guarantee(change):
    with pytest.raises(ValidationError):
        make_program(**change)


def test_a_program_s_numbers_are_numbers_in_every_field():
    """As a worker reads it back: true is no step, and "1" no noise; 4.0 steps are 4, and rate 1 is 1.0."""
    chosen = ["mechanism", "estimator"]  # each kind of them alone, below
    for model, free in ((Program, ["options", *chosen]), (Phase, chosen), (Whole, ["of"])):
        assert_own_kind_alone(model, free)
    for model in (Speed, PoissonGaussian, Gaussian, FirstOrder, ZerothOrder):
        assert_own_kind_alone(model)
    stored = json.loads(make_program(options={"r": 4}).model_dump_json())
    (first,) = stored["phases"]
    first |= {"steps": 4.0, "mechanism": first["mechanism"] | {"sample_rate": 1}}
    (phase,) = Program.model_validate(stored).phases
    assert [(type(n), n) for n in (phase.steps, phase.mechanism.sample_rate)] == [(int, 4), (float, 1.0)]
    for betas in ([False, 0.5], ["0.9", 0.5]):
        with pytest.raises(ValidationError):
            Program.model_validate(stored | {"phases": [first | {"betas": betas}]})


@pytest.mark.parametrize("name", method_names())
def test_a_method_s_options_and_numbers_take_their_own_kind_alone(name):
    method = get_method(name)
    for model in (method.Options, method.Request):
        assert_own_kind_alone(model)


def assert_own_kind_alone(model, free=()):
    schema = model.model_json_schema()
    for place, value, fits in candidates(schema, schema, free):
        try:
            model.model_validate(value)
            wrong = []
        except ValidationError as error:
            wrong = [e["msg"] for e in error.errors() if e["loc"][:1] == place[:1]]
        assert not any(map(WRONG_KIND.search, wrong)) if fits else wrong, (model, value)


def test_a_program_is_frozen_and_survives_json():
    program = make_program(options={"r": 4})
    for part, name in ((program, "unit"), (program.phases[0], "steps"), (program.phases[0].mechanism, "sample_rate")):
        with pytest.raises(ValidationError):
            setattr(part, name, getattr(part, name))
    assert Program.model_validate_json(program.model_dump_json()) == program


def test_methods_are_found_by_name():
    assert set(METHODS) <= set(method_names())
    for name in ("loar", "", "../plan", "__init__"):
        with pytest.raises(UnknownMethod, match="lora"):
            get_method(name)


@pytest.mark.parametrize("task", get_args(TaskKind))
@pytest.mark.parametrize("name", method_names())
def test_defaults_give_a_valid_program_from_public_values(name, task):
    method = get_method(name)
    for size in (2, 10, 500, 67_349, 10_000_000):
        options, public = method.Options(), {"task": task, "declared_size": size, "epsilon": 3.0, "facts": FACTS}
        numbers = method.resolve(method.Request(), options, **public)
        *before, last = method.phases(options, numbers, declared_size=size)
        for phase in (*before, last):
            assert phase.mechanism.sample_rate == phase.expected_batch / size
            assert phase.trains in method_names(), "it is measured as the method that trains just that"
        assert last.steps == numbers.steps


@pytest.mark.parametrize("name", method_names())
def test_what_is_asked_for_is_taken_or_refused(name):
    method = get_method(name)
    public = {"task": "classification", "epsilon": 3.0, "facts": FACTS}
    assert method.Request(steps="auto", batch_size="auto", learning_rate="auto") == method.Request()
    steps = {"steps": 7} if takes_steps(method) else {}
    asked = method.Request(batch_size=5, learning_rate=0.5, **steps)
    numbers = method.resolve(asked, method.Options(), declared_size=5, **public)
    assert (numbers.batch_size, numbers.learning_rate) == (5, 0.5)
    assert numbers.steps == steps.get("steps", numbers.steps)
    with pytest.raises(ValueError, match="declared size 4"):
        method.resolve(asked, method.Options(), declared_size=4, **public)
    for bad in ({"steps": 0}, {"batch_size": -1}, {"learning_rate": float("nan")}, {"steps": "many"}, {"epochs": 3}):
        with pytest.raises(ValidationError):
            method.Request(**bad)
    for bad in ({"clip_norm": 0.0}, {"weight_averaging": 1.0}, {"clipping": "none"}, {"optimizer": "adam"}):
        with pytest.raises(ValidationError):
            method.Request(**bad)
    with pytest.raises(ValidationError):
        method.Options(rank=3)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_done_with_gradients_goes_into_the_program(name):
    method = get_method(name)
    wishes = {"clipping": "adaptive", "clip_norm": 0.3, "optimizer": "sgd", "weight_averaging": 0.99}
    public = {"task": "classification", "declared_size": 500, "epsilon": 3.0, "facts": FACTS}
    numbers = method.resolve(method.Request(learning_rate=0.5, **wishes), method.Options(), **public)
    (phase,) = method.phases(method.Options(), numbers, declared_size=500)
    assert {wish: getattr(phase, wish) for wish in wishes} == wishes
    with pytest.raises(ValueError, match="learning_rate"):
        method.resolve(method.Request(optimizer="sgd"), method.Options(), **public)


def test_memory_grows_with_what_needs_it():
    lora, sizes = get_method("lora"), {"max_length": 64, "labels": 2, "task": "classification"}
    small = lora.memory(lora.Options(), FACTS, **sizes)
    assert lora.memory(lora.Options(r=64), FACTS, **sizes) > small
    assert lora.memory(lora.Options(), FACTS, **sizes | {"max_length": 512}) > small
    assert 4 * FACTS.parameters < small < 2**30
    writing = {name: _memory(name, GPT2, labels=0, task="completion") for name in METHODS}
    reading = {name: _memory(name, FACTS, labels=2, task="classification") for name in METHODS}
    assert reading["lora-fa"] < reading["lora"] < reading["full"]
    assert reading["bitfit"] < reading["full"]
    assert all(writing[name] > reading[name] for name in METHODS)
    # A head that trains needs the scores of every word at every place; a frozen one does not.
    more = GPT2.model_copy(update={"vocab_size": 4 * GPT2.vocab_size})
    grown = {name: _memory(name, more, labels=0, task="completion") - writing[name] for name in METHODS}
    scores = 4 * 3 * 2048 * 3 * GPT2.vocab_size
    assert {name for name in METHODS if grown[name] >= scores} == {"full"}


def _memory(name, facts, **sizes):
    method = get_method(name)
    return method.memory(method.Options(), facts, max_length=64, **sizes)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("base", ["bert", "gpt2-lm", "llama-lm"])
def test_what_trains_is_about_what_was_said(make_base, name, base):
    """The formulas' counts, which the memory of a job is planned with, against the model itself."""
    if (name, base) == ("bitfit", "llama-lm"):
        return
    model, task = make_base(base, layers=2), "completion" if base.endswith("-lm") else "classification"
    config = model.config
    facts = ModelFacts(
        model_type=config.model_type,
        hidden_size=16,
        intermediate_size=32,
        layers=2,
        heads=2,
        vocab_size=70,
        max_positions=32,
    )
    method, labels = get_method(name), 0 if task == "completion" else config.num_labels
    said = method.trainable(method.Options(), facts, labels=labels, task=task)
    adapted = get_trainer(name).attach(model, {}, task=task, seed=0)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert 0.7 < said / trained < 1.45


def test_a_model_without_biases_is_refused_by_the_method_that_trains_them(make_base, tmp_path):
    bitfit = get_method("bitfit")
    make_base("llama-lm").save_pretrained(tmp_path / "llama")
    make_base("gpt2-lm").save_pretrained(tmp_path / "gpt2")
    llama, gpt2 = read_facts(tmp_path / "llama"), read_facts(tmp_path / "gpt2")
    assert (llama.causal_lm, llama.biases) == (True, 0)
    with pytest.raises(ValueError, match="has no biases, so bitfit has nothing to train"):
        bitfit.check(bitfit.Options(), llama, "completion")
    bitfit.check(bitfit.Options(), gpt2, "completion")
    biases = sum(p.numel() for n, p in make_base("gpt2-lm").named_parameters() if n.endswith(".bias"))
    assert gpt2.biases == biases
    with pytest.raises(ValueError, match="no biases"):
        get_trainer("bitfit").attach(make_base("llama-lm"), {}, task="completion", seed=0)


def test_biases_are_counted_in_every_shard(make_base, tmp_path):
    """And that of a masked language model's head is none of the base model's."""
    for name, some in (("llama-lm", False), ("gpt2-lm", True)):
        make_base(name).save_pretrained(tmp_path / name, max_shard_size="8KB")
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 1
        facts = read_facts(tmp_path / name)
        assert (facts.biases > 0) == some
        assert "lm_head" in facts.linear
    zoo.build("modernbert", "classification").base_model.save_pretrained(tmp_path / "mlm")
    weights = load_file(tmp_path / "mlm" / "model.safetensors") | {"decoder.bias": torch.zeros(70)}
    save_file(weights, tmp_path / "mlm" / "model.safetensors")
    assert read_facts(tmp_path / "mlm").biases == 0


@pytest.mark.parametrize("name", [n for n in zoo.EVERY if n not in ("funnel", "nystromformer")])
def test_facts_are_those_of_the_model_itself(tmp_path, name):
    """Sizes as transformers reads them, the longest text that runs, and the linear layers by name."""
    task = "completion" if name in zoo.DECODERS else "classification"
    folder = zoo.save(name, task, tmp_path)
    if task == "classification":  # with its pooler, which a classifier may read nothing of
        AutoModel.from_config(zoo.config(name, task)).save_pretrained(folder)
    facts, config = read_facts(folder), AutoConfig.from_pretrained(folder)
    assert facts.hidden_size == config.hidden_size
    assert facts.layers == config.num_hidden_layers
    assert facts.vocab_size == getattr(config, "vocab_size", 64)
    assert name in ("fnet", "mamba", "mamba2", "rwkv") or facts.heads == config.num_attention_heads
    model = (AutoModelForCausalLM if task == "completion" else AutoModel).from_pretrained(folder).eval()
    assert facts.linear is not None or name in ("bart", "gpt_neox", "ibert", "t5")
    if facts.linear is not None:
        assert set(facts.linear) == {n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    if name in ("bloom", "mamba", "mamba2", "t5", "xlnet"):
        assert facts.max_positions == 2048  # it has none
    elif name != "canine":
        assert facts.max_positions in (zoo.POSITIONS, zoo.POSITIONS - 2)
        assert _runs(model, facts.max_positions)
        bound = {"bart", "esm-rotary", "falcon", "rwkv", *BOUND_BY_CONFIG}
        assert name in bound or not _runs(model, facts.max_positions + 1)


BOUND_BY_CONFIG = {
    *("cohere", "deberta", "deberta-v2", "gemma", "gemma2", "gemma3_text", "gpt_neox", "granite", "llama", "mistral"),
    *("modernbert", "olmo", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2"),
}
"""Their positions are relative or rotary, and no table ends."""


def _runs(model, length):
    try:
        with torch.no_grad():
            model(input_ids=torch.full((1, length), 7), attention_mask=torch.ones(1, length, dtype=torch.int64))
    except (IndexError, RuntimeError):
        return False
    return True


def test_a_tokenizer_s_bound_holds_where_the_model_has_none(tmp_path):
    zoo.save("bloom", "completion", tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for named, most in ((300, 300), (int(1e30), 2048)):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": named}))
        assert read_facts(tmp_path).max_positions == most


def test_a_model_s_language_part_tells_its_sizes(tmp_path):
    part = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 9}
    part |= {"max_position_embeddings": 64, "intermediate_size": 16}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": part}))
    facts = read_facts(tmp_path)
    assert (facts.model_type, facts.hidden_size, facts.max_positions) == ("gemma3", 8, 64)


@pytest.mark.parametrize("name", [n for n, known in ARCHITECTURES.items() if known.kind in ("classifier", "causal")])
def test_facts_know_the_linear_layers_of_the_usual_models(tmp_path, name):
    """As the model itself names them; a classifier's new head is in no file of a base model."""
    model = ARCHITECTURES[name].build()
    (model if ARCHITECTURES[name].kind == "causal" else model.base_model).save_pretrained(tmp_path)
    facts = read_facts(tmp_path)
    linear = {n for n, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    prefix = f"{model.base_model_prefix}."
    inside = {n for n in linear if n.startswith(prefix) or facts.causal_lm}
    assert {n if facts.causal_lm else prefix + n for n in facts.linear} == inside
    assert (facts.tied_head == "lm_head") == (facts.causal_lm and "untied" not in name)
    for wanted in (*ARCHITECTURES[name].adapted, max(inside - {"lm_head"}, key=len)):
        options = get_method("lora").Options(target_modules=(wanted,))
        get_method("lora").check(options, facts, "completion" if facts.causal_lm else "classification")


@pytest.mark.parametrize("name", ["lora", "lora-fa"])
def test_a_name_that_no_layer_has_is_refused_by_the_field(make_base, tmp_path, name):
    """When the job is planned, with the names that there are; else by the model, before the first step."""
    method = get_method(name)
    make_base("bert").save_pretrained(tmp_path)
    facts = read_facts(tmp_path)
    for bad in ("qurey", "uery", "layer", "word_embeddings", "LayerNorm"):
        options = method.Options(target_modules=("value", bad))
        with pytest.raises(FieldError, match=f"'{bad}'; there are: .*key, query, value") as caught:
            method.check(options, facts, "classification")
        assert caught.value.field == "target_modules"
        method.check(options, facts.model_copy(update={"linear": None}), "classification")
        with pytest.raises(ValueError, match=bad):
            get_trainer(name).attach(make_base("bert"), options.model_dump(), task="classification", seed=0)
    for nothing in ((), "", ("value", "")):
        with pytest.raises(FieldError, match="is empty"):
            method.check(method.Options(target_modules=nothing), FACTS, "classification")


def test_facts_tell_what_a_model_can_do(make_base, tokenizer, writer_tokenizer, tmp_path):
    make_base("bert").base_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert read_facts(tmp_path).tasks == ("classification", "pair")
    make_base("gpt2-lm").save_pretrained(tmp_path)
    assert read_facts(tmp_path).tasks == ("classification", "pair", "completion", "text")
    writer_tokenizer.save_pretrained(tmp_path)
    assert read_facts(tmp_path).tasks == ("classification", "pair", "completion", "chat", "text")


def test_facts_of_models_that_name_things_differently(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "distilbert", "dim": 8, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "vocab_size": 9}
        )
    )
    with pytest.raises(ValueError, match="max_positions"):
        read_facts(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (read_facts(tmp_path).hidden_size, read_facts(tmp_path).max_positions) == (8, 64)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "roberta", "pad_token_id": 1}))
    assert read_facts(tmp_path).max_positions == 62
