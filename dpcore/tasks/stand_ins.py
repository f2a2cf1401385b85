"""Public records to rehearse with: what a tokenizer can make of text, at any length, its largest token included."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from dpcore.embedding_rows import TrainedRows
from dpcore.engine.errors import OutsideTable
from dpcore.tasks.records import Records


@dataclass(frozen=True)
class StandIns:
    """How records of a tokenizer look. before, after: tokens that it puts around a text, int32; ordinary: tokens that a
    text itself can become, int32, sorted, at least one."""

    before: np.ndarray
    after: np.ndarray
    ordinary: np.ndarray

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *, before: Sequence[int], after: Sequence[int]) -> "StandIns":
        """before, after: what stands around a text."""
        known = sorted(set(tokenizer.get_vocab().values()))
        # Text that spells a special token is text.
        special = set(tokenizer.all_special_ids)
        ordinary = [token for token in known if token not in special] or known
        return cls(*(np.asarray(tokens, dtype=np.int32) for tokens in (before, after, ordinary)))

    @property
    def shortest(self) -> int:
        """Fewest tokens of a record; one of none is filled up to one."""
        return max(1, len(self.before) + len(self.after))

    def make(self, lengths: Sequence[int], *, labels: np.ndarray, marked: bool, halves: bool = False) -> Records:
        """Records of these lengths, each of other tokens, and each token twice in a row.

        marked: the mark of every token; halves: marked from the middle on.
        """
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        # From the largest down: that one is in every set of records.
        place = np.arange(offsets[-1]) // 2
        tokens = self.ordinary[-1 - place % len(self.ordinary)]
        marks = np.full(len(tokens), marked, dtype=np.int8)
        for start, end in pairwise(offsets):
            before, after = self.before[: end - start], self.after[: max(0, end - start - len(self.before))]
            tokens[start : start + len(before)], tokens[end - len(after) : end] = before, after
            if halves:
                marks[(start + end) // 2 : end] = 1
        return Records(tokens, offsets, marks, labels)

    def mixed(self, count: int, length: int) -> list[int]:
        """Lengths of `count` records: the first of the most, the others spread evenly down to the fewest."""
        least = min(self.shortest, length)
        return [length - (length - least) * i // max(1, count - 1) for i in range(count)]

    def require_in_table(self, model: nn.Module, *, padding: int, written: Iterable[int] = ()) -> None:
        """Raises OutsideTable unless the model's table has a row for every token of a record and for padding.

        written: further tokens that records have. A model without a table, such as one that hashes, has nothing to ask.
        """
        find = getattr(model, "get_input_embeddings", None)
        try:
            table = None if find is None else find()
        except NotImplementedError:
            table = None
        if isinstance(table, TrainedRows):
            table = table.table
        if not isinstance(table, nn.Embedding):
            return
        rows = table.num_embeddings
        own = np.concatenate([self.before, self.after, self.ordinary, np.asarray([*written], dtype=np.int64)])
        for what, token in (("padding (pad_token_id)", padding), ("the tokenizer's largest token", int(own.max()))):
            if not 0 <= token < rows:
                raise OutsideTable(
                    f"{what} is number {token}, and the model's table of embeddings has {rows} rows, 0 to {rows - 1}: "
                    "model and tokenizer do not belong together"
                )


def around(tokenizer: PreTrainedTokenizerBase, *, pair: bool = False) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer puts before and after a text; for a pair also between the two."""
    texts = ("", "") if pair else ("",)
    empty = [int(token) for token in tokenizer(*texts)["input_ids"]]
    filled = [int(token) for token in tokenizer(*("a" for _ in texts))["input_ids"]]
    first = next((i for i, (a, b) in enumerate(zip(empty, filled, strict=False)) if a != b), len(empty))
    return empty[:first], empty[first:]
