"""A made-up population of users who write in a made-up language, and public text in another dialect of it.

A word is followed by one of its few usual successors, or by any word as frequent as Zipf's law says. Users' dialect has
other successors for a part of the words, and some words that are rare in public text are frequent in it, so that a
model of the public text has something to learn; every user prefers some words of its own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from dpcore.models import seeded
from dpcore.word_counts import write_word_counts

_USUAL, _SUCCESSORS = 0.7, 3
"""How often a usual successor follows, and how many a word has."""
_OWN, _OWN_WORDS = 0.1, 8
"""How often a user's own words come, and how many they are."""
_CHANGED = 0.5
"""Of the words that have other successors in the users' dialect."""
_RISEN = 0.05
"""Of the words, those that are as frequent in it as the most frequent ones of public text."""
_WORDS = 12
"""Of a record."""
_END = "<end>"


@dataclass(frozen=True)
class Dialect:
    """How likely each word is (float64 [V]), and its usual successors (int64 [V, 3])."""

    likely: np.ndarray
    successors: np.ndarray


@dataclass(frozen=True)
class Population:
    """Records of users, whose each is, and texts of both dialects that nobody trains on."""

    public: list[str]
    texts: list[str]
    owners: list[int]
    held_out: list[str]


def dialects(vocabulary: int, seed: int = 0) -> tuple[Dialect, Dialect]:
    """Of public text, and of the users. Word 0 ends a text and has no part in either."""
    draw = np.random.default_rng(seed)
    likely = 1.0 / (np.arange(vocabulary) + 3.7)
    likely[0] = 0.0
    successors = draw.choice(vocabulary, size=(vocabulary, _SUCCESSORS), p=likely / likely.sum())
    others, risen = successors.copy(), likely.copy()
    changed = draw.random(vocabulary) < _CHANGED
    others[changed] = draw.choice(vocabulary, size=(int(changed.sum()), _SUCCESSORS), p=likely / likely.sum())
    count = int(_RISEN * vocabulary)
    up = draw.choice(np.arange(vocabulary // 2, vocabulary), size=count, replace=False)
    risen[up] = likely[1 : count + 1]
    return Dialect(likely / likely.sum(), successors), Dialect(risen / risen.sum(), others)


def write(dialect: Dialect, records: int, draw: np.random.Generator, own: np.ndarray | None = None) -> list[str]:
    """Texts of words. own: words that each record prefers, int64 [records, k]."""
    words = np.zeros((records, _WORDS), dtype=np.int64)
    words[:, 0] = draw.choice(len(dialect.likely), size=records, p=dialect.likely)
    for place in range(1, _WORDS):
        usual = dialect.successors[words[:, place - 1], draw.integers(0, _SUCCESSORS, size=records)]
        any_word = draw.choice(len(dialect.likely), size=records, p=dialect.likely)
        words[:, place] = np.where(draw.random(records) < _USUAL, usual, any_word)
        if own is not None:
            mine = own[np.arange(records), draw.integers(0, own.shape[1], size=records)]
            words[:, place] = np.where(draw.random(records) < _OWN, mine, words[:, place])
    return [" ".join(f"w{word}" for word in row) for row in words]


def population(
    vocabulary: int, users: int, *, most_records: int = 5, public: int = 40_000, seed: int = 0
) -> Population:
    """Users with one to so many records each, and as many texts of public text as named."""
    draw, (of_public, of_users) = np.random.default_rng(seed + 1), dialects(vocabulary, seed)
    counts = draw.integers(1, most_records + 1, size=users)
    owners = np.repeat(np.arange(users), counts)
    own = draw.choice(vocabulary, size=(users, _OWN_WORDS), p=of_users.likely)
    others = draw.choice(vocabulary, size=(1000, _OWN_WORDS), p=of_users.likely)
    return Population(
        public=write(of_public, public, draw),
        texts=write(of_users, len(owners), draw, own[owners]),
        owners=owners.tolist(),
        held_out=write(of_users, 1000, draw, others),
    )


def save_base(folder: Path, vocabulary: int, *, width: int, layers: int) -> None:
    """A GPT-2 of this shape with random weights, one token a word, and Zipf's counts of public text."""
    words = {_END: 0} | {f"w{i}": i for i in range(1, vocabulary)}
    made = Tokenizer(WordLevel(words, unk_token=_END))
    made.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token=_END, eos_token=_END).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    with seeded(0):
        GPT2LMHeadModel(config).save_pretrained(folder)
    counts = 10**7 * dialects(vocabulary)[0].likely
    counts[0] = 10**6  # every text has an end
    write_word_counts(folder, counts.astype(np.int64).tolist())
