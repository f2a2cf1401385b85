"""Noise-contrastive estimation: a head that learns from its targets and a few words of a public distribution, so that
its memory does not grow with the vocabulary (Gutmann and Hyvarinen 2012; Mnih and Teh 2012).

Of a place whose head reads c and whose target is w, with k words w_j drawn from p:

    -log sig(s(w, c) - log k p(w)) - sum_j log sig(-(s(w_j, c) - log k p(w_j)))

The words are drawn from public probabilities alone, never from a batch, and are the same for all places of a call. The
scores learn to be normalised by themselves. Ranking (Ma and Collins 2018) asks which of the target and the drawn words
it is, and nothing of how scores are normalised:

    -log( exp(s(w, c)) / p(w) ) + log( exp(s(w, c)) / p(w) + sum_j exp(s(w_j, c)) / p(w_j) )
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dpcore.embedding_rows import rows_of
from dpcore.engine.errors import NotTrainable
from dpcore.mechanism.keystream import Keystream
from dpcore.tasks.frozen_head import Reading


class Nce:
    """A `dpcore.tasks.losses.Loss` of a causal language model."""

    def __init__(
        self,
        probabilities: np.ndarray,
        negatives: int,
        stream: Keystream,
        *,
        normaliser: float = 0.0,
        ranking: bool = False,
    ) -> None:
        """probabilities: public, of each word, above zero for each that may be a target: float64 [vocabulary].
        negatives: k. stream: what they are drawn by. normaliser: what a public model's scores exceed normalised ones
        by, so that a model that learnt from all words need not learn it. Raises ValueError for what is no distribution,
        and for no negatives or more than there are words."""
        each = np.asarray(probabilities, dtype=np.float64)
        if each.ndim != 1 or not (np.isfinite(each).all() and (each > 0).all()):
            raise ValueError("every word needs a probability above zero")
        if not 1 <= negatives <= len(each):
            raise ValueError(f"there are {len(each)} words: {negatives} of them cannot be drawn beside each target")
        self._ends = np.cumsum(each / each.sum())
        self._log_each = torch.from_numpy(np.log(negatives * each / each.sum()))
        self._negatives, self._normaliser, self._ranking = negatives, normaliser, ranking
        self.stream = stream
        """What the next words are drawn by."""

    def __call__(self, model: nn.Module, run: Callable[..., Any], where: Tensor, targets: Tensor) -> Tensor:
        """Float32 or better [m, T], zero where nothing counts. Raises NotTrainable for a model that makes something
        else of its head's output: what is learnt would not be what it says."""
        head = model.get_output_embeddings()  # type: ignore[operator]
        reading = Reading(len(self._ends))
        head.forward = reading
        try:
            output = run()
        finally:
            del head.forward
        if not reading.given(output.logits):
            raise NotTrainable("the model changes its head's scores, and learns from all words or not at all: no nce")
        states, wanted = reading.read[where], targets[where]
        drawn = self._drawn().to(states.device)
        of_targets, of_drawn = rows_of(head, wanted), rows_of(head, drawn)
        noise = self._log_each.to(states) + self._normaliser
        right = (states * of_targets.vectors).sum(-1) + of_targets.biases - noise[wanted]
        wrong = states @ of_drawn.vectors.T + of_drawn.biases - noise[drawn]
        if self._ranking:
            each = torch.logaddexp(right, wrong.logsumexp(-1)) - right
        else:
            each = -logsigmoid(right) - logsigmoid(-wrong).sum(-1)
        return torch.zeros(where.shape, dtype=each.dtype, device=each.device).masked_scatter(where, each)

    def _drawn(self) -> Tensor:
        """Words: int64 [k]."""
        uniform = self.stream.integers(self._negatives).astype(np.float64) / 2.0**64
        places = np.searchsorted(self._ends, uniform, side="right").clip(max=len(self._ends) - 1)
        return torch.from_numpy(places.astype(np.int64))
