"""A small language model of one's own, made of public text alone: its tokenizer, how frequent its tokens are, and its
weights after some steps of plain training. Nothing here is private, and nothing here may see a private file.

For jobs over users, whose noise grows with what trains: a table of 10,000 words and 2.8 million weights can learn what
a table of 50,000 words drowns in.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from dpcore.models import seeded
from dpcore.word_counts import write_word_counts

_END = "<|endoftext|>"
_BYTES = 256
_BATCH = 16
_RATE = 2e-3


@dataclass(frozen=True)
class Shape:
    """Of a GPT-2: tokens of its vocabulary, numbers of a vector, layers, heads, and tokens that it reads at once."""

    vocabulary: int = 10_000
    width: int = 160
    layers: int = 4
    heads: int = 4
    positions: int = 256

    def __post_init__(self) -> None:
        """Raises ValueError for a shape that is none."""
        if self.vocabulary <= _BYTES + 1:
            raise ValueError(f"the vocabulary must be larger than {_BYTES + 1}: every byte is a token, and the end")
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise ValueError(f"the width {self.width} must be a multiple of the {self.heads} heads")
        if self.layers < 1 or self.positions < 2:
            raise ValueError("a model has a layer at least, and reads two tokens at least")


def make_writer(
    texts: Sequence[str],
    folder: Path,
    shape: Shape,
    *,
    steps: int,
    seed: int = 0,
    told: Callable[[int], None] = lambda step: None,
) -> int:
    """Write config.json, model.safetensors, the tokenizer and the counts of words into an empty folder; how many
    weights the model has. steps: of plain training, each on 16 pieces of the text; told(step): after each.

    The seed drives the initialisation and the order of pieces. Raises ValueError for texts with too few words for the
    vocabulary or fewer tokens than one piece, and FileExistsError for a folder that is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    tokenizer = _tokenizer(texts, shape.vocabulary)
    end = int(tokenizer.convert_tokens_to_ids(_END))
    ids = [
        np.asarray([*one, end], dtype=np.int64) for one in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ]
    stream = np.concatenate(ids)
    if len(stream) <= shape.positions:
        raise ValueError(f"the text has {len(stream)} tokens, less than the model reads at once: bring more")
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_positions=shape.positions,
        bos_token_id=end,
        eos_token_id=end,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    with seeded(seed):
        model = GPT2LMHeadModel(config)
    _train(model, stream, shape.positions, steps, seed, told)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors writes for the owner alone
    write_word_counts(folder, np.bincount(stream, minlength=shape.vocabulary).tolist())
    return sum(p.numel() for p in model.parameters())


def _tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every text has tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False
        ),
    )
    found = made.get_vocab_size()
    if found < vocabulary:
        raise ValueError(f"the text has words for a vocabulary of {found}, not {vocabulary}: name less, or bring more")
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=_END, eos_token=_END)


def _train(
    model: GPT2LMHeadModel, stream: np.ndarray, length: int, steps: int, seed: int, told: Callable[[int], None]
) -> None:
    """Plain AdamW on random pieces, its rate falling linearly."""
    draw, optimiser = np.random.default_rng(seed), torch.optim.AdamW(model.parameters(), lr=_RATE)
    model.train()
    for step in range(steps):
        starts = draw.integers(0, len(stream) - length, size=_BATCH)
        pieces = torch.from_numpy(np.stack([stream[start : start + length] for start in starts]))
        for group in optimiser.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        model(input_ids=pieces, labels=pieces).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        told(step + 1)
    model.eval()
