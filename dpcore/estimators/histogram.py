"""How often each token stands in each drawn user's records, clipped as one vector and added up: what a job needs to
know of its users' words, at a price (DP-FEST, Ghazi et al. 2023, counts the rows of an embedding so).

Guarantee: a user's counts are of its own records alone, so that one that leaves takes its clipped vector with it and
moves nobody else's. The weights have no part in it.

Edge cases: a user without a token adds nothing; the tokens that a text can become have a place each, and no other has.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.engine.errors import NotTrainable
from dpcore.estimators import Setting
from dpcore.machine.micro_batches import Stopped
from dpcore.mechanism.clipping import ClippedSum, OneVector
from dpcore.mechanism.keystream import Keystream
from dpcore.mechanism.sampling import Owners, first_within
from dpcore.terms.estimators import Histogram as HistogramTerms


class Histogram:
    """An `Estimator` of users, over one trainable vector with a place for each token."""

    def __init__(self, setting: Setting) -> None:
        assert isinstance(setting.phase.estimator, HistogramTerms)
        assert setting.owners is not None, "words are counted by user"
        self._setting, self._terms = setting, setting.phase.estimator
        self._owners = Owners(setting.owners)
        self.units = len(self._owners)
        self.parameters: Mapping[str, nn.Parameter] = {
            name: p for name, p in setting.model.named_parameters() if p.requires_grad
        }
        self.dtype = torch.float64
        self._lengths = np.asarray(setting.records.lengths)

    def rehearse(self) -> None:
        """Public records. Raises NotTrainable for tokens that have no place."""
        if [p.ndim for p in self.parameters.values()] != [1]:
            raise NotTrainable("words are counted into one vector with a place for each")
        task = self._setting.task
        self._counts(task.synthetic(1, task.max_length), np.arange(1))

    def enter(self) -> None:
        """Nothing of the model is this estimator's own."""

    def sum(self, drawn: np.ndarray, clip_norm: float, directions: Callable[[], Keystream]) -> ClippedSum:
        """Of the drawn users' counts; there are no directions."""
        phase, (counts,) = self._setting.phase, self.parameters.values()
        total = ClippedSum.zero(
            counts.numel(),
            clip_norm=clip_norm,
            clipping=phase.clipping,
            expected_batch=phase.expected_batch,
            device=counts.device,
        )
        for user in drawn:
            if self._setting.should_stop():
                raise Stopped
            records = first_within(self._owners.records(user), self._lengths, self._terms.most_tokens)
            total.add(OneVector(self._counts(self._setting.records, records).to(counts.device)))
        return total

    def gradients(self, mean: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """The noised counts, turned: a step of plain descent with rate one adds them."""
        ((name, _),) = self.parameters.items()
        yield {name: -mean}

    def leave(self) -> None:
        """Nothing is kept."""

    def _counts(self, records: object, indices: np.ndarray) -> Tensor:
        """Of the tokens of some records: float64 [vocabulary]. Raises NotTrainable for one without a place."""
        (counts,) = self.parameters.values()
        tokens = [records.tokens[records.offsets[i] : records.offsets[i + 1]] for i in indices]  # type: ignore[attr-defined]
        found = np.bincount(np.concatenate(tokens), minlength=counts.numel()) if tokens else np.zeros(counts.numel())
        if len(found) > counts.numel():
            raise NotTrainable(f"a token is number {len(found) - 1}, and the table has {counts.numel()} rows")
        return torch.from_numpy(found.astype(np.float64))


make = Histogram
