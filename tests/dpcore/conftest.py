"""Tiny random encoders, a word tokenizer and records to train them on."""

from collections.abc import Callable
from pathlib import Path

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
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from dpcore.methods import get_method
from dpcore.tasks.sequence_classification import Records, SequenceClassification

LABELS = ("no", "yes", "perhaps")
WORDS = [f"w{i}" for i in range(60)]
MAX_LENGTH = 16


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


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
        return task.encode(texts, [LABELS[t] for t in targets])

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


BASES = {"bert": _bert, "roberta": _roberta, "distilbert": _distilbert}


@pytest.fixture
def make_base() -> Callable[..., PreTrainedModel]:
    """A random encoder by name; float64 on request."""

    def make(name: str = "bert", *, layers: int = 1, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return BASES[name](layers).to(dtype).eval()

    return make


@pytest.fixture
def make_model(make_base):
    """A random encoder with LoRA attached; `awake` gives B its own random values, so that A has a gradient."""

    def make(name: str = "bert", *, layers: int = 1, dtype: torch.dtype = torch.float32, awake: bool = True, **options):
        model = get_method("lora").attach(make_base(name, layers=layers, dtype=dtype), {"r": 2, **options}, seed=3)
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
