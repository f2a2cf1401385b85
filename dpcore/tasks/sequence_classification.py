"""Sequence classification: a text in, one of a public set of labels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

_ENCODE_AT_ONCE = 10_000


@dataclass(frozen=True)
class Records:
    """Encoded records side by side.

    tokens: int32 [sum of lengths]; offsets: int64 [n + 1], record i is tokens[offsets[i]:offsets[i + 1]];
    labels: int64 [n], positions in the public label set.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int64 [n]."""
        return np.diff(self.offsets)


class SequenceClassification:
    """Encoding, loss and prediction. Holds public values only: the tokenizer, the label set, the length cap."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], max_length: int) -> None:
        """Raises ValueError for a repeated label, or fewer than two."""
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise ValueError("the label set must have at least two labels, each once")
        self.labels = tuple(labels)
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._pad = int(tokenizer.pad_token_id or 0)

    def encode(self, texts: Sequence[str], labels: Sequence[str]) -> Records:
        """Tokenise, cut at the length cap, and map labels to their positions.

        Raises ValueError for a label outside the public set, without naming it: it may be private.
        """
        position = {label: i for i, label in enumerate(self.labels)}
        try:
            targets = np.array([position[label] for label in labels], dtype=np.int64)
        except KeyError:
            raise ValueError("a record's label is not in the public label set") from None
        return self._encode(texts, targets)

    def _encode(self, texts: Sequence[str], targets: np.ndarray) -> Records:
        if len(texts) != len(targets):
            raise ValueError(f"{len(texts)} texts but {len(targets)} labels")
        rows: list[np.ndarray] = []
        for start in range(0, len(texts), _ENCODE_AT_ONCE):
            # Text that spells a special token is text: it must not become the token.
            encoded = self._tokenizer(
                list(texts[start : start + _ENCODE_AT_ONCE]),
                truncation=True,
                max_length=self.max_length,
                split_special_tokens=True,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            rows.extend(np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"])
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        tokens = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
        return Records(tokens, offsets, targets)

    def synthetic(self, count: int, length: int) -> Records:
        """Public stand-in records of `length` tokens, to rehearse with."""
        vocabulary = len(self._tokenizer)
        tokens = np.arange(count * length, dtype=np.int32) % vocabulary
        # A padding token inside a record would be read as padding by models that look for it.
        tokens[tokens == self._pad] = (self._pad + 1) % vocabulary
        labels = np.arange(count, dtype=np.int64) % len(self.labels)
        return Records(tokens, np.arange(count + 1, dtype=np.int64) * length, labels)

    def losses(self, model: nn.Module, records: Records, indices: np.ndarray, length: int) -> Tensor:
        """Cross entropy of each record: float [m]; every record is padded to `length`."""
        device = next(model.parameters()).device
        logits = self._forward(model, records, indices, length)
        labels = torch.from_numpy(records.labels[indices]).to(device)
        return F.cross_entropy(logits, labels, reduction="none")

    def _forward(self, model: nn.Module, records: Records, indices: np.ndarray, length: int) -> Tensor:
        """Logits [m, labels] of records padded to `length`."""
        device = next(model.parameters()).device
        ids = np.full((len(indices), length), self._pad, dtype=np.int64)
        mask = np.zeros((len(indices), length), dtype=np.int64)
        for row, i in enumerate(indices):
            record = records.tokens[records.offsets[i] : records.offsets[i + 1]]
            ids[row, : len(record)] = record
            mask[row, : len(record)] = 1
        output: Any = model(
            input_ids=torch.from_numpy(ids).to(device), attention_mask=torch.from_numpy(mask).to(device)
        )
        return output.logits  # type: ignore[no-any-return]

    @torch.no_grad()
    def logits(self, model: nn.Module, texts: Sequence[str], *, tokens: int = 4096) -> Tensor:
        """Logits [n, labels] in the order of the texts; about `tokens` padded tokens at a time."""
        records = self._encode(texts, np.zeros(len(texts), dtype=np.int64))
        out = torch.empty(len(texts), len(self.labels))
        order = np.argsort(records.lengths, kind="stable")
        while len(order):
            length = int(records.lengths[order[-1]])
            size = max(1, tokens // length)
            now, order = order[-size:], order[:-size]
            out[torch.from_numpy(now)] = self._forward(model, records, now, length).float().cpu()
        return out

    def predict(self, model: nn.Module, texts: Sequence[str]) -> list[str]:
        """The most likely label of each text."""
        return [self.labels[i] for i in self.logits(model, texts).argmax(1).tolist()]

    def accuracy(self, model: nn.Module, texts: Sequence[str], labels: Sequence[str]) -> float:
        """Share of texts with the right label. For public evaluation sets: on a private file it is not private."""
        hits = sum(a == b for a, b in zip(self.predict(model, texts), labels, strict=True))
        return hits / len(texts)
