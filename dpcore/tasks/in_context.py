"""Tokens of texts with parts that nobody trusts: the tokens of the whole text, unless such a part spells a special one.

A tokenizer may write a part's first token as its neighbours ask (SentencePiece's word mark, a merge over the border):
parts that are tokenised alone are not what a stock chat template gives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from dpcore.tasks.records import Row

_AT_ONCE = 1000


@dataclass(frozen=True)
class TextPart:
    """Text, whether it comes out of a record, and whether its tokens are targets."""

    text: str
    foreign: bool
    target: bool


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[TextPart]]) -> list[Row | None]:
    """Token numbers and marks of each text, by that text alone.

    None where a foreign part spells a special token or takes one apart, or where the tokenizer does not tell which
    characters a token stands for.
    """
    if not tokenizer.is_fast:
        return [None] * len(texts)
    added = tokenizer.added_tokens_decoder
    rows: list[Row | None] = []
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        whole = ["".join(part.text for part in parts) for parts in some]
        encoded = tokenizer(whole, add_special_tokens=False, split_special_tokens=False)
        for parts, text, encoding in zip(some, whole, encoded.encodings, strict=True):
            rows.append(_row(parts, text, encoding, added, tokenizer))
    return rows


def _row(
    parts: Sequence[TextPart], text: str, encoding: Any, added: Mapping[int, Any], tokenizer: PreTrainedTokenizerBase
) -> Row | None:
    lengths = np.array([len(part.text) for part in parts], dtype=np.int64)
    foreign = np.repeat(np.array([part.foreign for part in parts], dtype=bool), lengths)
    target = np.repeat(np.array([part.target for part in parts], dtype=bool), lengths)
    ids, offsets = np.array(encoding.ids, dtype=np.int32), np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    for place in np.flatnonzero(np.isin(ids, list(added))):
        token, (begin, end) = added[int(ids[place])], offsets[place]
        if ids[place] == tokenizer.unk_token_id and token.content.casefold() not in text[begin:end].casefold():
            continue  # a word that the tokenizer does not know, and no one's spelling of the token
        # White space beside a token is taken in by some tokens, and spells nothing.
        written = [not character.isspace() for character in text[begin:end]]
        by = set(foreign[begin:end][written].tolist())
        if True in by and (token.special or False in by):
            return None
    # A token is a target if one of its characters is. A word mark stands for none: it belongs to what follows.
    begin, end = offsets[:, 0], np.minimum(np.maximum(offsets[:, 1], offsets[:, 0] + 1), len(text))
    before = np.concatenate([[0], np.cumsum(target)])
    return ids, (before[end] > before[begin]).astype(np.int8)
