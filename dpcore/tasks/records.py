"""Encoded records side by side, and their way into a model's padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Records:
    """Encoded records of a file.

    tokens: int32 [sum of lengths]; offsets: int64 [n + 1], record i is tokens[offsets[i]:offsets[i + 1]], at least one
    token. marks: int8 [sum of lengths], one for each token, what the task makes of it. labels: int64 [n], positions in
    the public label set; zeros where the task has none.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    marks: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int64 [n]."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Batch:
    """Records padded on the right to one length: ids, mask, marks int64 [m, length]; mask is 1 on real tokens."""

    ids: Tensor
    mask: Tensor
    marks: Tensor


Row = tuple[np.ndarray, np.ndarray]
"""Tokens of one record, and their marks."""


def joined(rows: Sequence[Row], labels: np.ndarray, *, filler: int) -> Records:
    """Records side by side. One without a token gets the filler, unmarked: a batch cannot hold nothing."""
    nothing = (np.array([filler], dtype=np.int32), np.zeros(1, dtype=np.int8))
    filled = [row if len(row[0]) else nothing for row in rows]
    offsets = np.zeros(len(filled) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids, _ in filled], out=offsets[1:])
    tokens = np.concatenate([ids for ids, _ in filled]) if filled else np.zeros(0, dtype=np.int32)
    marks = np.concatenate([own for _, own in filled]) if filled else np.zeros(0, dtype=np.int8)
    return Records(tokens, offsets, marks, labels)


def padded(records: Records, indices: np.ndarray, length: int, *, pad: int, device: torch.device) -> Batch:
    """The records of `indices` in a batch of this length."""
    starts, steps = records.offsets[indices], np.arange(length)
    real = steps < (records.offsets[indices + 1] - starts)[:, None]
    where = (starts[:, None] + steps)[real]
    ids = np.full(real.shape, pad, dtype=np.int64)
    mask, marks = real.astype(np.int64), np.zeros_like(ids)
    ids[real], marks[real] = records.tokens[where], records.marks[where]
    return Batch(*(torch.from_numpy(array).to(device) for array in (ids, mask, marks)))


def by_length(records: Records, *, tokens: int) -> list[tuple[np.ndarray, int]]:
    """All records cut into (indices, padded length), longest first, of about `tokens` padded tokens each."""
    cuts, order = [], np.argsort(records.lengths, kind="stable")
    while len(order):
        length = int(records.lengths[order[-1]])
        size = max(1, tokens // length)
        cuts.append((order[-size:], length))
        order = order[:-size]
    return cuts


def device_of(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


def setting(model: nn.Module, name: str) -> Any:
    """A value of a transformers model's configuration; None where it has none of this name."""
    return getattr(getattr(model, "config", None), name, None)
