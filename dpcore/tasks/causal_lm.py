"""Causal language models: a record teaches how its own target tokens follow from the tokens before them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dpcore.engine.errors import LooksAhead
from dpcore.engine.rehearsal import evaluating
from dpcore.tasks.frozen_head import target_losses
from dpcore.tasks.losses import Loss
from dpcore.tasks.records import Batch, Records, Row, by_length, device_of, joined, padded
from dpcore.tasks.stand_ins import StandIns

_ENCODE_AT_ONCE = 10_000
_LOOKED_AT = 8
"""Tokens of the text by which is seen whether a model looks ahead."""
_PAD = 0
"""Any token: padding stands on the right, is masked, and nothing looks at it."""

Columns = Mapping[str, Sequence[str]]
Pieces = Sequence[tuple[str, bool]]
"""The texts of a record one after the other, each with whether its tokens are targets."""


class CausalLM(ABC):
    """Encoding, loss and perplexity of records of one kind, which says what their tokens are (`rows`). Holds public
    values only: the tokenizer, the length cap. A record's marks are 1 on its targets."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.max_length = max_length
        self._tokenizer = tokenizer
        # What this tokenizer puts before any text of its own accord: Llama's start token; nothing for GPT-2.
        first = tokenizer("", add_special_tokens=True)["input_ids"][:1]
        self._start = array(first if first == [tokenizer.bos_token_id] else [])
        self._end = array([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])
        self._stand_ins = StandIns.of(tokenizer, before=self._start.tolist(), after=[])

    def encode(self, columns: Columns, labels: Sequence[int] | None = None) -> Records:
        """Tokenise and cut on the right at the length cap; what is cut away teaches nothing. There are no labels."""
        rows = [(ids[: self.max_length], marks[: self.max_length]) for ids, marks in self.rows(columns)]
        return joined(rows, np.zeros(len(rows), dtype=np.int64), filler=_PAD)

    @abstractmethod
    def rows(self, columns: Columns) -> list[Row]:
        """Tokens and marks of each record, uncut, by that record alone."""

    def apart(self, records: Sequence[Pieces]) -> list[Row]:
        """Rows of records whose texts are tokenised alone. A record ends with the tokenizer's end token, a target too,
        so that the model learns to stop."""
        ids = iter(self.ids([text for record in records for text, _ in record]))
        return [
            row_of([(self._start, False), *((next(ids), target) for _, target in record), (self._end, True)])
            for record in records
        ]

    def beginning(self, row: Mapping[str, str], *, whole: bool = False) -> list[int]:
        """The tokens that stand before what the model is to write, as they stood in training, or uncut: the `whole`
        beginning. What it writes is empty in the row."""
        columns = {name: [value] for name, value in row.items()}
        ids = [int(token) for token in (self.rows(columns)[0][0] if whole else self.encode(columns).tokens)]
        # Training ends a record with it; here the record goes on.
        return ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids

    def beside_texts(self) -> list[int]:
        """Tokens that a record has beside those of its texts."""
        return [int(token) for token in self._end]

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of texts out of records: what looks like a special token in them is text."""
        out: list[np.ndarray] = []
        for start in range(0, len(texts), _ENCODE_AT_ONCE):
            some = list(texts[start : start + _ENCODE_AT_ONCE])
            encoded = self._tokenizer(some, add_special_tokens=False, split_special_tokens=True)
            out.extend(array(ids) for ids in encoded["input_ids"])
        return out

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
        return self._stand_ins.make(lengths, labels=np.zeros(len(lengths), dtype=np.int64), marked=True)

    def require_fit(self, model: nn.Module) -> None:
        """Raises OutsideTable for a model that lacks a token which records may hold, and LooksAhead for one whose
        scores at a place depend on what comes after it, such as an encoder."""
        self._stand_ins.require_in_table(model, padding=_PAD, written=self.beside_texts())
        one = self.synthetic(1, min(_LOOKED_AT, self.max_length))
        ids = torch.from_numpy(one.tokens).to(device_of(model), torch.int64).unsqueeze(0)
        other = ids.clone()
        other[0, -1] = int(self._stand_ins.ordinary[0])
        with torch.no_grad(), evaluating(model):
            first, second = (
                model(input_ids=row, attention_mask=torch.ones_like(row)).logits[:, :-1] for row in (ids, other)
            )
        if not torch.allclose(first, second, rtol=1e-3, atol=1e-4):
            raise LooksAhead(
                "the model's scores at a place depend on the words after it, so that it would learn to copy: it is no "
                "causal language model"
            )

    def losses(
        self,
        model: nn.Module,
        records: Records,
        indices: np.ndarray,
        length: int,
        *,
        loss: Loss = target_losses,
    ) -> Tensor:
        """Mean of cross entropy, or another loss, over each record's own targets: float [m], exactly zero, with a zero
        gradient, where it has none."""
        batch = padded(records, indices, length, pad=_PAD, device=device_of(model))
        sums, counts = summed_losses(model, batch, loss)
        return sums / counts.clamp(min=1)

    @torch.no_grad()
    def metrics(
        self,
        model: nn.Module,
        columns: Columns,
        labels: Sequence[int] | None = None,
        *,
        tokens: int = 4096,
    ) -> dict[str, float]:
        """loss: mean over all target tokens, and perplexity, its exponential, with standard_error, by how records
        differ; evaluated: records with a target, and tokens. For public files: on a private one none of it is private.
        Raises ValueError when no record has a target within the length cap."""
        records = self.encode(columns)
        found = []
        for now, length in by_length(records, tokens=tokens):
            batch = padded(records, now, length, pad=_PAD, device=device_of(model))
            found.append(torch.stack([part.double().cpu() for part in summed_losses(model, batch)]))
        sums, counts = torch.cat(found, dim=1)
        evaluated, targets = int((counts > 0).sum()), float(counts.sum())
        if not evaluated:
            raise ValueError("no record has a target token within the length cap")
        loss = float(sums.sum()) / targets
        perplexity = exp(min(loss, 700.0))
        # Of a ratio of two sums over records (Cochran 1977, section 2.11), and of its exponential.
        squares = float(((sums - loss * counts) ** 2).sum())
        error = (squares * evaluated / max(1, evaluated - 1)) ** 0.5 / targets
        return {
            "loss": loss,
            "perplexity": perplexity,
            "standard_error": perplexity * error,
            "evaluated": evaluated,
            "tokens": targets,
        }


def array(ids: Sequence[int]) -> np.ndarray:
    return np.asarray(ids, dtype=np.int32)


def row_of(pieces: Sequence[tuple[np.ndarray, bool]]) -> Row:
    """Pieces of a record, each with whether its tokens are targets, one after the other."""
    if not pieces:
        return array([]), np.zeros(0, dtype=np.int8)
    return (
        np.concatenate([ids for ids, _ in pieces]),
        np.concatenate([np.full(len(ids), target, dtype=np.int8) for ids, target in pieces]),
    )


def summed_losses(model: nn.Module, batch: Batch, loss: Loss = target_losses) -> tuple[Tensor, Tensor]:
    """Summed loss of each record's targets, by default cross entropy, and their number: both [m]."""
    # A token is predicted where the one before it stands; the first has none before it.
    following, predicted = torch.zeros_like(batch.ids), torch.zeros_like(batch.ids, dtype=torch.bool)
    following[:, :-1], predicted[:, :-1] = batch.ids[:, 1:], batch.marks[:, 1:] == 1
    # Logits are dear, and not needed where no record has a target: over its prompts, say.
    needed = predicted.any(0).nonzero().squeeze(1)
    kept = needed if len(needed) else torch.zeros_like(batch.ids[0, :1])

    def run(**more: Any) -> Any:
        return model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=kept, **more)

    where = predicted[:, kept]
    return loss(model, run, where, following[:, kept]).sum(1), where.sum(1)
