"""Base models of one layer, or a few, with random weights, and a task that they can learn: is a text about fruit or about metal?"""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

LABELS = ("fruit", "metal")
TOPICS = (("apple", "pear", "plum", "cherry"), ("iron", "zinc", "copper", "lead"))
FILLER = ("the", "a", "of", "and", "old", "new", "big", "small", "here", "there")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_model(folder: Path, layers: int = 1) -> None:
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
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config).save_pretrained(folder)


def save_writer(folder: Path) -> None:
    """The same for a language model, whose words include the labels; it has no padding token."""
    words = ["[UNK]", "[END]", *FILLER, *TOPICS[0], *TOPICS[1], *LABELS]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[END]").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(words),
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=32,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        GPT2LMHeadModel(config).save_pretrained(folder)


def rows(count: int, seed: int, mark: str = "") -> tuple[list[str], list[int]]:
    """Texts and the positions of their labels. mark: is put behind each word of FILLER, so that no text looks like one
    of another mark; without it chance makes one in ten thousand look like another's, and its upload a question."""
    source = random.Random(seed)
    texts, labels = [], []
    for i in range(count):
        label = i % 2
        filler = source.choices(FILLER, k=source.randint(2, 9))
        words = [source.choice(TOPICS[label]), *(f"{word}{mark}" for word in filler)]
        source.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels
