"""A base model's folder gives a model that trains as it says, or is refused in words fit for the public."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CanineTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from dpcore.export import About
from dpcore.methods import get_trainer, load_export
from dpcore.methods.heads import head_modules
from dpcore.models import build_model, load_tokenizer, with_padding
from dpcore.tasks import make_task

from . import zoo
from .tokenizer_makers import letters

LABELS = ("no", "yes", "perhaps")


def build(folder: Path, kind: str = "classification", *, seed: int = 3) -> torch.nn.Module:
    return build_model(kind, folder, LABELS if kind == "classification" else (), seed=seed)


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "deberta-v2", "xlnet", "t5", "gpt2", "opt", "qwen2", "bloom", "mpnet"]
)
def test_a_folder_without_a_tokenizer_is_refused(tmp_path, name):
    """transformers makes an empty one up for most types; for the others it says what nobody understands."""
    zoo.config(name, "classification").save_pretrained(tmp_path)
    with pytest.raises(OSError, match="has no tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(OSError, match="has no tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["bert", "roberta", "t5", "gpt2"])
def test_a_tokenizer_that_knows_no_word_is_refused(tmp_path, name):
    """One that was made up, and saved by somebody."""
    zoo.config(name, "classification").save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="knows no word"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_needs_no_file_where_it_reads_characters(tmp_path):
    zoo.config("canine", "classification").save_pretrained(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), CanineTokenizer)


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)


def _shard_is_gone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {
        "metadata": {},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without(folder: Path, part: str) -> None:
    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if part not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


WRONG = {
    "4 bit": (
        lambda f: change(f, quantization_config={"quant_method": "bitsandbytes"}),
        ValueError,
        "quantization_config",
    ),
    "cut": (_cut, ValueError, "cut or damaged"),
    "shard": (_shard_is_gone, ValueError, "cannot be loaded"),
    "pickled": (_pickled, OSError, r"no weights in safetensors; its \.bin files"),
    "own code": (
        lambda f: change(f, model_type="mine", auto_map={"AutoModel": "m.M"}),
        ValueError,
        "'mine'.*code of its own",
    ),
    "unknown": (lambda f: change(f, model_type="mine"), ValueError, "model_type 'mine'"),
    "shapes": (
        lambda f: change(f, vocab_size=71),
        ValueError,
        "other shapes .*: bert.embeddings.word_embeddings.weight",
    ),
    "no classifier": (lambda f: change(f, model_type="mamba"), ValueError, "no classifier of model_type 'mamba'"),
    "package": (lambda f: change(f, model_type="layoutlmv2"), ValueError, "needs a package .*detectron2"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), ValueError, "config.json"),
    "no config": (lambda f: (f / "config.json").unlink(), OSError, "config.json"),
    "layer": (lambda f: _without(f, "layer.1."), ValueError, r"lacks weights: bert\.encoder\.layer\.1\."),
    "half a pooler": (lambda f: _without(f, "pooler.dense.bias"), ValueError, r"lacks weights: bert\.pooler"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_loaded_is_refused_in_one_public_line(tmp_path, what):
    wrong, kind, words = WRONG[what]
    wrong(zoo.save("bert", "classification", tmp_path / "hidden"))
    with pytest.raises(kind, match=words) as caught:
        build(tmp_path / "hidden")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_code_that_is_not_needed_is_left_alone(tmp_path):
    """Many a public folder brings the code from before transformers knew its type."""
    change(zoo.save("phi3", "completion", tmp_path), auto_map={"AutoModelForCausalLM": "mine.Mine"})
    assert type(build(tmp_path, "completion")).__name__ == "Phi3ForCausalLM"


def test_weights_of_half_precision_train_in_float32(tmp_path):
    zoo.save("bert", "classification", tmp_path)
    half = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(half, tmp_path / "model.safetensors", metadata={"format": "pt"})
    change(tmp_path, dtype="bfloat16")
    assert {p.dtype for p in build(tmp_path).parameters()} == {torch.float32}


@pytest.mark.parametrize("labels", [3, 5])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "gpt2"])
def test_a_classifiers_own_head_is_left_behind(tmp_path, name, labels):
    """Its names would be others', whether their number agrees or not: the head is the one that a base model gets."""
    zoo.save(name, "classification", tmp_path / "base")
    whole = zoo.build(name, "classification", num_labels=labels)
    base = build(tmp_path / "base").base_model.state_dict()
    whole.base_model.load_state_dict(base, strict=False)
    whole.save_pretrained(tmp_path / "whole")
    zoo.tokenizer(name, "classification").save_pretrained(tmp_path / "whole")
    heads = head_modules(whole)
    plain, built, other = build(tmp_path / "base"), build(tmp_path / "whole"), build(tmp_path / "whole", seed=4)
    for head in heads:
        for mine, fresh, again in zip(
            *(m.get_submodule(head).parameters() for m in (built, plain, other)), strict=True
        ):
            assert torch.equal(mine, fresh)
            assert mine.std() == 0 or not torch.equal(mine, again)
    assert all(torch.equal(p, base[n]) for n, p in built.base_model.named_parameters())
    assert built.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    "name", ["modernbert", "distilbert", "deberta-v2", "xlnet", "electra", "gpt2", "mpt", "albert"]
)
def test_a_head_is_what_the_base_model_has_not(name):
    """Nothing else, all of it, and no name is known beforehand."""
    model = zoo.build(name, "classification")
    inside = {id(p) for p in model.base_model.parameters()}
    new = {n for n, p in model.named_parameters() if id(p) not in inside}
    heads = tuple(f"{head}." for head in head_modules(model))
    assert new == {n for n, _ in model.named_parameters() if n.startswith(heads)} != set()


@pytest.mark.parametrize("method", ["lora", "bitfit", "full"])
def test_a_pooler_that_the_folder_lacks_is_a_part_of_the_head(tmp_path, method):
    """A masked language model is saved without one: it is drawn from the seed, trains and leaves."""
    zoo.save("bert", "classification", tmp_path / "base")
    _without(tmp_path / "base", "pooler")
    one, again, other = (build(tmp_path / "base", seed=s).get_parameter("bert.pooler.dense.weight") for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    model = get_trainer(method).attach(build(tmp_path / "base"), {}, task="classification", seed=3)
    pooler = [p for n, p in model.named_parameters() if "pooler" in n and p.requires_grad]
    assert len(pooler) == 2
    with torch.no_grad():
        for p in pooler:
            p.add_(0.1)
    about = About("example/tiny", "0" * 64, method, "classification", LABELS, 16)
    get_trainer(method).export(model, tmp_path / "export", about)
    loaded, _ = load_export(tmp_path / "export", tmp_path / "base")
    ids = zoo.step_ids()
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_pooler_that_nothing_reads_does_not_train(tmp_path):
    zoo.save("big_bird", "classification", tmp_path)
    _without(tmp_path, "pooler")
    for method in ("lora", "bitfit", "full"):
        model = get_trainer(method).attach(build(tmp_path), {}, task="classification", seed=3)
        assert not any(p.requires_grad for n, p in model.named_parameters() if "bert.pooler" in n), method


def _llama3(folder: Path, **config: object) -> Path:
    """As Llama-3-Instruct: two end tokens, none for padding; token 0 is '!'."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    values = {"vocab_size": 259, "bos_token_id": 256, "eos_token_id": [257, 258], "pad_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        LlamaForCausalLM(LlamaConfig(**values | shape)).save_pretrained(folder)
    special = ("<begin>", "<end_of_text>", "<eot>")
    letters(*special, bos_token="<begin>", eos_token="<eot>").save_pretrained(folder)
    change(folder, **config)
    return folder


@pytest.mark.parametrize("padding", [None, -1, 0, 259, 4000])
def test_padding_is_a_token_that_no_text_holds(tmp_path, padding):
    """Where none is named, one that is outside the table, or '!': a classifier reads the last token before it."""
    folder = _llama3(tmp_path, pad_token_id=padding)
    tokenizer, model = load_tokenizer(folder), build(folder)
    assert model.config.pad_token_id == 258
    task = make_task("classification", with_padding(tokenizer, model), labels=LABELS, max_length=32)
    texts = ["a good film", "a good film!!!", "a good film<eot>"]
    one, marks, spelt = task.logits(model, {"text": texts})
    assert (one - marks).abs().max() > 1e-3
    assert (one - spelt).abs().max() > 1e-3, "what looks like the token in a text is text"
    assert build(_llama3(tmp_path / "named", pad_token_id=257)).config.pad_token_id == 257
    writer = build(folder, "completion")
    assert writer.config.pad_token_id == (padding if padding in (None, 0) else 258)


def test_an_exported_tokenizer_fills_a_batch_of_two(tmp_path):
    """GPT-2 has no padding token; its classifier's reader gets one, the model's own."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, bos_token_id=256, eos_token_id=256)
        GPT2LMHeadModel(config).save_pretrained(tmp_path)
    end = "<|endoftext|>"
    letters(end, bos_token=end, eos_token=end, unk_token=end).save_pretrained(tmp_path)
    tokenizer, model = load_tokenizer(tmp_path), build(tmp_path)
    assert tokenizer.pad_token is None
    with_padding(tokenizer, model).save_pretrained(tmp_path / "export")
    model.save_pretrained(tmp_path / "export")
    stock = AutoTokenizer.from_pretrained(tmp_path / "export")
    reader = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export").eval()
    batch = stock(["one", "one and more"], padding=True, return_tensors="pt")
    assert batch["input_ids"][0].tolist()[3:] == [256] * 9
    task = make_task("classification", tokenizer, labels=LABELS, max_length=32)
    torch.testing.assert_close(reader(**batch).logits, task.logits(model, {"text": ["one", "one and more"]}))


def test_a_token_without_a_row_is_refused_where_a_record_may_hold_it(tmp_path):
    """Padding that somebody added to the tokenizer alone, a word, or what a chat template writes."""
    image = "<image>"  # as Gemma 3's, which no text becomes
    for i, (special, word, template, words) in enumerate(
        (
            ({"pad_token": image}, "", "", r"token 259 \(pad_token_id\), '<image>'.*table has 259 rows"),
            ({}, "film", "", "token 259, 'film'"),
            ({"extra_special_tokens": [image]}, "", "{{ '<image>' }}", "token 259, '<image>'"),
            ({"extra_special_tokens": [image]}, "", "", None),
        )
    ):
        folder = _llama3(tmp_path / str(i))
        tokenizer = load_tokenizer(folder)
        tokenizer.add_special_tokens(special)
        tokenizer.add_tokens([word] if word else [])
        tokenizer.chat_template = template or None
        tokenizer.save_pretrained(folder)
        for kind in ("classification", "completion"):
            with pytest.raises(ValueError, match=words) if words else nullcontext():
                build(folder, kind)


def test_a_tokenizer_without_a_special_token_has_no_padding(tmp_path):
    folder = _llama3(tmp_path, eos_token_id=None, bos_token_id=None)
    for file in folder.glob("*token*"):
        file.unlink()
    letters().save_pretrained(folder)
    with pytest.raises(ValueError, match="pad_token_id is None, the embedding table has 259 rows"):
        build(folder)
