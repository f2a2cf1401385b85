"""Sequence classification: a text, or a pair of texts, in; one of a public set of labels out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dpcore.tasks.accuracy import accuracy, are_right, places, require_names
from dpcore.tasks.losses import Loss, label_losses
from dpcore.tasks.records import Records, Row, by_length, device_of, joined, padded, setting
from dpcore.tasks.stand_ins import StandIns, around

_ENCODE_AT_ONCE = 10_000


class SequenceClassification:
    """Encoding, loss and prediction. Holds public values only: the tokenizer, the label set, the length cap.

    A record's marks are its segments: 1 on the second text of a pair, for models that tell the two apart.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_length: int,
        *,
        columns: tuple[str] | tuple[str, str] = ("text",),
    ) -> None:
        """columns: of the text, or of the two of a pair. Raises ValueError for a repeated label, or fewer than two."""
        self.labels = require_names(labels)
        self.max_length = max_length
        self._columns = columns
        self._tokenizer = tokenizer
        self._segments = "token_type_ids" in tokenizer.model_input_names
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self._pad = next(int(token) for token in special if token is not None)
        before, after = around(tokenizer, pair=len(columns) > 1)
        self._stand_ins = StandIns.of(tokenizer, before=before, after=after)

    def encode(self, columns: Mapping[str, Sequence[str]], labels: Sequence[int]) -> Records:
        """Tokenise and cut at the length cap, the longer text of a pair first.

        labels: positions in the public label set. Raises ValueError for one outside it, without naming it: it may be
        private.
        """
        targets = places(labels, self.labels).numpy()
        texts = [columns[name] for name in self._columns]
        if any(len(column) != len(targets) for column in texts):
            raise ValueError(f"{[len(column) for column in texts]} texts but {len(targets)} labels")
        rows: list[Row] = []
        for start in range(0, len(targets), _ENCODE_AT_ONCE):
            # Text that spells a special token is text: it must not become the token.
            encoded = self._tokenizer(
                *(list(column[start : start + _ENCODE_AT_ONCE]) for column in texts),
                truncation=True,
                max_length=self.max_length,
                split_special_tokens=True,
                return_attention_mask=False,
                return_token_type_ids=True,
            )
            for ids, segments in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
                rows.append((np.asarray(ids, dtype=np.int32), np.asarray(segments, dtype=np.int8)))
        return joined(rows, targets, filler=self._pad)

    @property
    def shortest(self) -> int:
        """Fewest tokens of a record."""
        return self._stand_ins.shortest

    def synthetic(self, count: int, length: int) -> Records:
        """Public stand-in records of `length` tokens, to rehearse with."""
        return self._made_up([length] * count)

    def mixed(self, count: int, length: int) -> Records:
        """Public stand-in records of at most `length` tokens, each of another length."""
        return self._made_up(self._stand_ins.mixed(count, length))

    def _made_up(self, lengths: Sequence[int]) -> Records:
        labels = np.arange(len(lengths), dtype=np.int64) % len(self.labels)
        return self._stand_ins.make(lengths, labels=labels, marked=False, halves=len(self._columns) > 1)

    def require_fit(self, model: nn.Module) -> None:
        """Raises OutsideTable for a model that lacks a token which records may hold, or padding."""
        self._stand_ins.require_in_table(model, padding=self._padding(model))

    def losses(
        self,
        model: nn.Module,
        records: Records,
        indices: np.ndarray,
        length: int,
        *,
        loss: Loss = label_losses,
    ) -> Tensor:
        """Cross entropy of each record, or another loss of its label: float [m]; every record is padded to `length`."""
        labels = torch.from_numpy(records.labels[indices]).to(device_of(model))
        run = partial(self._run, model, records, indices, length)
        return loss(model, run, torch.ones_like(labels, dtype=torch.bool), labels)

    def right(self, model: nn.Module, records: Records, indices: np.ndarray, length: int) -> Tensor:
        """Whether each record gets its own label: bool [m]; logits that are no numbers are wrong."""
        logits = self._run(model, records, indices, length).logits.float().cpu()
        return are_right(logits, torch.from_numpy(records.labels[indices]))

    def _run(self, model: nn.Module, records: Records, indices: np.ndarray, length: int, **more: Any) -> Any:
        """The model's output on records padded to `length`; its logits are [m, labels]. more: what it is called with
        besides."""
        batch = padded(records, indices, length, pad=self._padding(model), device=device_of(model))
        # As the tokenizer would have it; but GPT-2, and RoBERTa with one kind of segment, cannot tell two apart.
        two = self._segments and (setting(model, "type_vocab_size") or 0) > 1
        segments = {"token_type_ids": batch.marks} if two else {}
        return model(input_ids=batch.ids, attention_mask=batch.mask, **segments, **more)

    def _padding(self, model: nn.Module) -> int:
        # RoBERTa's positions and a decoder's last token are found by the model's own idea of padding.
        pad = setting(model, "pad_token_id")
        return self._pad if pad is None else int(pad)

    @torch.no_grad()
    def logits(self, model: nn.Module, columns: Mapping[str, Sequence[str]], *, tokens: int = 4096) -> Tensor:
        """Logits [n, labels] in the order of the records; about `tokens` padded tokens at a time."""
        records = self.encode(columns, [0] * len(columns[self._columns[0]]))
        out = torch.empty(len(records), len(self.labels))
        for now, length in by_length(records, tokens=tokens):
            out[torch.from_numpy(now)] = self._run(model, records, now, length).logits.float().cpu()
        return out

    def metrics(self, model: nn.Module, columns: Mapping[str, Sequence[str]], labels: Sequence[int]) -> dict[str, Any]:
        """What `dpcore.tasks.accuracy` has. For public files: on a private one none of it is private."""
        return accuracy(self.logits(model, columns), labels, self.labels)
