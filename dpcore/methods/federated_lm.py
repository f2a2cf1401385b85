"""A language model over users: some rows of its tables train as a change of their own, with LoRA's factors or all other
weights; what leaves is a whole model of its kind."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore import embedding_rows
from dpcore.export import About, export_whole
from dpcore.export import load_whole as load
from dpcore.mechanism.keystream import Keystream
from dpcore.methods import lora
from dpcore.methods.plain import between
from dpcore.methods.unused import freeze_unused
from dpcore.readers import Reader
from dpcore.tasks.nce import Nce
from dpcore.tasks.other_loss import OtherLoss
from dpcore.terms.methods.federated_lm import WORDS, Options
from dpcore.terms.program import Phase
from dpcore.terms.tasks import TaskKind
from dpcore.word_counts import probabilities

__all__ = ["attach", "begin", "between", "export", "learns", "load"]

_PUBLIC, _LENGTH = 8, 32
"""Public records, and their tokens, by which is seen how far scores are from normalised ones."""


class OverUsers(nn.Module):
    """The model, and what users' training needs to know of it."""

    def __init__(self, inner: nn.Module, options: Options, likely: np.ndarray, rows: int) -> None:
        """likely: public probabilities of words, float64 [vocabulary]."""
        super().__init__()
        self.inner, self.options, self.likely, self._rows = inner, options, likely, rows
        self._trains = {name for name, p in inner.named_parameters() if p.requires_grad}
        private = options.chosen_by == "private"
        self.word_counts = nn.Parameter(torch.zeros(len(likely), dtype=torch.float64)) if private else None
        self.eval()

    def turn_to(self, *, words: bool) -> None:
        """Let the counts of words train, or the rounds, of the rows that the counts choose."""
        for name, p in self.inner.named_parameters():
            p.requires_grad_(name in self._trains and not words)
        if self.word_counts is not None:
            self.word_counts.requires_grad_(words)
            counts = self.word_counts.detach().cpu().numpy()
            # The one count may have been paid for and lost with its worker: then public text decides.
            found = counts if counts.any() else self.likely
            embedding_rows.choose(self.base, embedding_rows.by_frequency(found, self._rows))

    @property
    def base(self) -> PreTrainedModel:
        """Without an adapter around it."""
        return self.inner.get_base_model() if isinstance(self.inner, PeftModel) else self.inner

    @property
    def config(self) -> Any:
        """Of the model."""
        return self.base.config

    def get_input_embeddings(self) -> Any:
        """Of the model."""
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """Of the model."""
        return self.base.get_output_embeddings()

    def forward(self, **inputs: Any) -> Any:
        """As the model does."""
        return self.inner(**inputs)


class Contrasting(OtherLoss):
    """A task whose records teach by targets and drawn words. Every user of a round meets words of its own, whoever else
    was drawn: the same ones for all would not average out."""

    def __init__(self, task: Any, nce: Nce) -> None:
        super().__init__(task, nce)
        self._nce, self._key = nce, bytes(32)

    def begin_round(self, stream: Keystream) -> None:
        """Words of a round's own."""
        self._key = stream.integers(4).tobytes()

    def begin_user(self, user: int) -> None:
        """From the user's first word of this round on."""
        key = hashlib.blake2b(user.to_bytes(8, "little"), key=self._key, digest_size=32)
        self._nce.stream = Keystream(key.digest())


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> OverUsers:
    """Let the rows train that public text or the seed chooses, with what trains in the blocks. Those of public
    text also stand in for rows that the file chooses until their phase is over.

    The seed also drives LoRA's initialisation. Raises ValueError as `lora` does, for more rows than there are and for
    counts of words that are not the vocabulary's; NotTrainable for tables of another kind.
    """
    wanted = Options.model_validate(options)
    table = model.get_input_embeddings()
    vocabulary = int(table.weight.shape[0])
    likely, rows = probabilities(Path(model.name_or_path), vocabulary), wanted.rows_of(vocabulary)
    chosen = (
        embedding_rows.by_seed(vocabulary, rows, seed)
        if wanted.chosen_by == "seed"
        else embedding_rows.by_frequency(likely, rows)
    )
    inner: nn.Module = model
    if wanted.blocks == "lora":
        inner = lora.attach(model, wanted.lora.model_dump(mode="json"), task=task, seed=seed)
    else:
        freeze_unused(model.requires_grad_(wanted.blocks == "all"), task)
    embedding_rows.attach(model, chosen)
    return OverUsers(inner, wanted, likely, rows)


def begin(model: Any, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
    """The counts of words train in their phase, everything else in the rounds."""
    model.turn_to(words=phase.name == WORDS)


def learns(model: Any, phase: Phase, task: Any) -> Any:
    """The task as it is, or by targets and drawn words."""
    loss = model.options.loss
    if phase.name == WORDS or loss == "softmax":
        return task
    stream = Keystream(bytes(32))  # of the rehearsal; a round brings its own
    by_rank, away = loss == "ranking", _normaliser(model, task)
    return Contrasting(task, Nce(model.likely, model.options.negatives, stream, normaliser=away, ranking=by_rank))


@torch.no_grad()
def _normaliser(model: Any, task: Any) -> float:
    """What the public model's scores exceed normalised ones by, on words of public probabilities: the mean of log sum
    exp. Far from it, all that is learnt first is to be normalised, and what the model knew is lost on the way."""
    size = (_PUBLIC, min(_LENGTH, task.max_length))
    drawn = np.random.default_rng(0).choice(len(model.likely), p=model.likely, size=size)
    ids = torch.from_numpy(drawn).to(model.base.device, torch.int64)
    return float(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.logsumexp(-1).mean())


def merged(model: Any) -> PreTrainedModel:
    """A stock model: the rows' changes are in its tables, and an adapter in its weights. The one that trained is it."""
    if isinstance(model.inner, PeftModel):
        model.inner = model.inner.merge_and_unload()
    embedding_rows.merge(model.inner)
    whole: PreTrainedModel = model.inner
    return whole


def export(model: Any, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """A whole model."""
    export_whole(merged(model), folder, about, tokenizer=tokenizer)
