"""Tiny random encoders and language models, word tokenizers and records to train them on."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import dpcore.methods
import dpcore.terms.methods
from dpcore.methods import Trainer, get_trainer
from dpcore.tasks.records import Records
from dpcore.tasks.sequence_classification import SequenceClassification

from . import error_table

LABELS = ("no", "yes", "perhaps")
WORDS = [f"w{i}" for i in range(60)]
MAX_LENGTH = 16


def pytest_terminal_summary(terminalreporter, config):
    """With -s: how far the engine's sums were from the oracle's. Processes of pytest-xdist say nothing."""
    if config.getoption("capture") == "no" and (lines := error_table.lines()):
        terminalreporter.section("largest relative error against one by one")
        terminalreporter.write("\n".join([*lines, ""]))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], Trainer]]:
    """plant(module, terms, torch): a method of these two files beside the others, for one test; its torch side."""

    planted = []

    def plant(module: str, terms: str, torch: str) -> Trainer:
        for package, code in ((dpcore.terms.methods, terms), (dpcore.methods, torch)):
            folder = tmp_path / package.__name__
            folder.mkdir(exist_ok=True)
            (folder / f"{module}.py").write_text(code)
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
            planted.append(f"{package.__name__}.{module}")
        return get_trainer(module.replace("_", "-"))

    yield plant
    for name in planted:
        sys.modules.pop(name, None)
    for package in (dpcore.terms.methods, dpcore.methods):
        package._read.cache_clear()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{% endif %}"
    "[{{ message['role'] | upper }}] {{ message['content'] }} [END]"
    "{% endfor %}"
)


@pytest.fixture
def writer_tokenizer() -> PreTrainedTokenizerFast:
    """A language model's tokenizer: nothing is put around a text, no padding token, and a chat template."""
    special = ["[UNK]", "[EOS]", "[SYSTEM]", "[USER]", "[ASSISTANT]", "[END]"]
    core = Tokenizer(WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        bos_token="[EOS]",
        eos_token="[EOS]",
        additional_special_tokens=special[2:],
    )
    made.chat_template = CHAT_TEMPLATE
    return made


@pytest.fixture
def task(tokenizer) -> SequenceClassification:
    return SequenceClassification(tokenizer, LABELS, MAX_LENGTH)


@pytest.fixture
def make_records(task) -> Callable[[int], Records]:
    """n records of 3 to 14 tokens; the first word tells the label."""

    def make(n: int, seed: int = 0) -> Records:
        rng = np.random.default_rng(seed)
        targets = rng.integers(len(LABELS), size=n)
        texts = [" ".join([WORDS[t], *rng.choice(WORDS, size=rng.integers(0, 12))]) for t in targets]
        return task.encode({"text": texts}, targets.tolist())

    return make


def _bert(layers: int) -> PreTrainedModel:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=70,
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            num_labels=len(LABELS),
        )
    )


def _roberta(layers: int) -> PreTrainedModel:
    return RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=70,
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            pad_token_id=0,
            num_labels=len(LABELS),
        )
    )


def _distilbert(layers: int) -> PreTrainedModel:
    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=70,
            dim=16,
            n_layers=layers,
            n_heads=2,
            hidden_dim=32,
            max_position_embeddings=32,
            num_labels=len(LABELS),
        )
    )


def _gpt2_config(layers: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=70,
        n_embd=16,
        n_layer=layers,
        n_head=2,
        n_inner=32,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=1,
        num_labels=len(LABELS),
    )


def _llama_config(layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=70,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=1,
        num_labels=len(LABELS),
    )


BASES = {
    "bert": _bert,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "gpt2": lambda layers: GPT2ForSequenceClassification(_gpt2_config(layers)),
    "llama": lambda layers: LlamaForSequenceClassification(_llama_config(layers)),
    "gpt2-lm": lambda layers: GPT2LMHeadModel(_gpt2_config(layers)),
    "llama-lm": lambda layers: LlamaForCausalLM(_llama_config(layers)),
}


@pytest.fixture
def make_base() -> Callable[..., PreTrainedModel]:
    """A random model by name; float64 on request."""

    def make(name: str = "bert", *, layers: int = 1, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return BASES[name](layers).to(dtype).eval()

    return make


@pytest.fixture
def make_model(make_base):
    """A random model with LoRA attached; `awake` gives B its own random values, so that A has a gradient."""

    def make(name: str = "bert", *, layers: int = 1, dtype: torch.dtype = torch.float32, awake: bool = True, **options):
        kind = "completion" if name.endswith("-lm") else "classification"
        base = make_base(name, layers=layers, dtype=dtype)
        model = get_trainer("lora").attach(base, {"r": 2, **options}, task=kind, seed=3)
        model = model.to(dtype)
        if awake:
            generator = torch.Generator().manual_seed(5)
            for parameter_name, p in model.named_parameters():
                if "lora_B" in parameter_name:
                    p.data = torch.randn(p.shape, generator=generator, dtype=dtype) * 0.3
        return model

    return make


@pytest.fixture
def base_folder(make_base, tokenizer, tmp_path) -> Path:
    """A base model saved the way a public one is: without a head."""
    folder = tmp_path / "base"
    make_base(layers=2).base_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def writer_folder(make_base, writer_tokenizer, tmp_path) -> Callable[[str], Path]:
    """A language model saved the way a public one is, by name."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        make_base(name, layers=2).save_pretrained(folder)
        writer_tokenizer.save_pretrained(folder)
        return folder

    return make


def takes_steps(method):
    """Whether a caller names the steps; a federated job's follow from its rounds."""
    return "steps" in method.Request.model_fields and method.Request.model_fields["steps"].annotation != Literal["auto"]
