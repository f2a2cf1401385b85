"""A base model of one layer with random weights, and a task that it can learn: is a text about fruit or about metal?"""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

LABELS = ("fruit", "metal")
TOPICS = (("apple", "pear", "plum", "cherry"), ("iron", "zinc", "copper", "lead"))
FILLER = ("the", "a", "of", "and", "old", "new", "big", "small", "here", "there")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_model(folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files."""
    words = [*SPECIAL, *FILLER, *TOPICS[0], *TOPICS[1]]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config).save_pretrained(folder)


def rows(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Texts and the positions of their labels."""
    source = random.Random(seed)
    texts, labels = [], []
    for i in range(count):
        label = i % 2
        words = [source.choice(TOPICS[label]), *source.choices(FILLER, k=source.randint(2, 9))]
        source.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels
