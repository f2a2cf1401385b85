"""Some rows of a frozen embedding, and of the head that reads with the same or another table: what trains is a change
of these rows alone, so that nothing else of the tables can move, and noise falls on nothing else.

Which rows is public: by frequencies or a seed that owe nothing to the file (partial embedding updates,
arXiv:2207.08988; how rows are chosen there could not be read). A row of the subset that no user's words touch is
noised like any other. With tied tables one change serves both, and is clipped once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.engine.errors import NotTrainable


def by_frequency(counts: Sequence[float] | np.ndarray, rows: int) -> np.ndarray:
    """The rows of the most frequent tokens, of ties those with lower numbers: int64 [rows], ascending. counts: of each
    token, from a public text, or noised. Raises ValueError for more rows than there are, or none."""
    return _required(np.sort(np.argsort(-np.asarray(counts), kind="stable")[:rows]), rows, len(counts))


def by_seed(vocabulary: int, rows: int, seed: int) -> np.ndarray:
    """Rows that a public seed draws: int64 [rows], ascending. Raises ValueError for more than there are, or none."""
    drawn = np.random.default_rng(seed).permutation(vocabulary)[:rows]
    return _required(np.sort(drawn), rows, vocabulary)


def _required(chosen: np.ndarray, rows: int, vocabulary: int) -> np.ndarray:
    if not 1 <= rows <= vocabulary:
        raise ValueError(f"the vocabulary has {vocabulary} rows; {rows} of them cannot train")
    return chosen.astype(np.int64)


def _places(chosen: np.ndarray, table: Tensor) -> Tensor:
    """Of each row of a table, where its change stands; behind the last one, where it has none."""
    place = torch.full((len(table),), len(chosen), device=table.device)
    place[torch.from_numpy(chosen)] = torch.arange(len(chosen), device=place.device)
    return place


def _changes(change: Tensor, place: Tensor, words: Tensor) -> Tensor:
    """Of words [...], zero for those whose rows stay: [..., width]."""
    return torch.cat([change, change.new_zeros(1, change.shape[1])])[place[words]]


class TrainedRows(nn.Module):
    """A table and the change of some of its rows, as an embedding."""

    def __init__(self, table: nn.Embedding, chosen: np.ndarray) -> None:
        super().__init__()
        self.table = table
        self.change = nn.Parameter(torch.zeros(len(chosen), table.embedding_dim).to(table.weight))
        self.register_buffer("place", _places(chosen, table.weight), persistent=False)

    @property
    def weight(self) -> Tensor:
        """Of the table that stays: models ask for its kind and place."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Of tokens [...]: vectors [..., width]."""
        found: Tensor = self.table(ids) + _changes(self.change, self.get_buffer("place"), ids)
        return found


class TrainedHead(nn.Module):
    """A head and the change of some of its rows."""

    def __init__(self, head: nn.Linear, chosen: np.ndarray, change: nn.Parameter | None) -> None:
        """change: the embedding's own, where the two are one table."""
        super().__init__()
        self.head = head
        self.change = (
            nn.Parameter(torch.zeros(len(chosen), head.in_features).to(head.weight)) if change is None else change
        )
        self.register_buffer("chosen", torch.from_numpy(chosen).to(head.weight.device), persistent=False)
        self.register_buffer("place", _places(chosen, head.weight), persistent=False)

    @property
    def weight(self) -> Tensor:
        """Of the head that stays: models ask for its kind and place."""
        return self.head.weight

    @property
    def bias(self) -> Tensor | None:
        """Of the head that stays, where it has one."""
        return self.head.bias

    def forward(self, states: Tensor) -> Tensor:
        """Of states [..., width]: scores [..., vocabulary]. No second table is made."""
        scores: Tensor = self.head(states)
        return scores.index_add(-1, self.get_buffer("chosen"), states @ self.change.T)


@dataclass(frozen=True)
class HeadRows:
    """Of some words: vectors [..., width], biases [...]."""

    vectors: Tensor
    biases: Tensor


def rows_of(head: nn.Module, words: Tensor) -> HeadRows:
    """What a head multiplies with and adds for these words, int64 [...], without the rest of its table."""
    table = head.head if isinstance(head, TrainedHead) else head
    assert isinstance(table, nn.Linear)
    vectors = table.weight[words]
    if isinstance(head, TrainedHead):
        vectors = vectors + _changes(head.change, head.get_buffer("place"), words)
    biases = vectors.new_zeros(words.shape) if table.bias is None else table.bias[words]
    return HeadRows(vectors, biases)


def attach(model: PreTrainedModel, chosen: np.ndarray) -> None:
    """Let the change of these rows train, in the embedding and in the head of a language model; both tables are frozen.
    Raises NotTrainable for a model whose tables are of another kind."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if type(table) is not nn.Embedding or type(head) is not nn.Linear or head.out_features != table.num_embeddings:
        raise NotTrainable("the model's embedding or head is no plain table of its vocabulary")
    if table.max_norm is not None:
        raise NotTrainable("the embedding changes its rows by itself (max_norm)")
    tied = head.weight is table.weight
    for parameter in (*table.parameters(), *head.parameters()):
        parameter.requires_grad_(False)
    rows = TrainedRows(table, chosen)
    model.set_input_embeddings(rows)
    model.set_output_embeddings(TrainedHead(head, chosen, rows.change if tied else None))


def choose(model: PreTrainedModel, chosen: np.ndarray) -> None:
    """Let the changes be of as many other rows, in the place of those so far: they must have no value yet, or one that
    these rows had before."""
    rows, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(rows, TrainedRows)
    assert isinstance(head, TrainedHead)
    place = _places(chosen, rows.table.weight)
    rows.get_buffer("place").copy_(place)
    head.get_buffer("place").copy_(place)
    head.get_buffer("chosen").copy_(torch.from_numpy(chosen))


def merge(model: PreTrainedModel) -> None:
    """Put the changes into the tables, which take their old places: a stock model."""
    rows, changed = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(rows, TrainedRows)
    assert isinstance(changed, TrainedHead)
    with torch.no_grad():
        rows.table.weight.index_add_(0, changed.get_buffer("chosen"), rows.change.to(rows.table.weight))
        if changed.change is not rows.change:
            changed.head.weight.index_add_(0, changed.get_buffer("chosen"), changed.change.to(changed.head.weight))
    model.set_input_embeddings(rows.table)
    model.set_output_embeddings(changed.head)
