"""Zeroth order: what forward passes say of random directions (DPZero, Zhang et al. 2024; DP-ZO, Tang et al. 2024).
No gradient is taken, so that training needs about the memory of inference.

A step has K directions z_k, standard normal. A unit i says of each s_ik = (loss_i(w + c z_k) - loss_i(w - c z_k)) / 2c;
its K numbers are clipped together and summed, so that the K sums are one output of the mechanism with one price. Their
noised means m_k make the gradient sum_k m_k z_k / K. The directions have a stream of their own, by which nothing is
drawn and no noise is made: they say nothing about either, and could be published.

A difference of two losses is divided by a small number, and rounding with it. So micro-batches have one shape for each
length, filled up with records that are not counted, and the rehearsal holds that a record's loss in them is the same to
the bit at every place, whoever else is there; where it is not, records are computed one at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcore.engine.errors import MixedExamples
from dpcore.engine.rehearsal import require_digits
from dpcore.engine.rows import Rows
from dpcore.engine.separate import require_separate
from dpcore.engine.trace import MORE, require_apart
from dpcore.estimators import Setting
from dpcore.machine.micro_batches import COARSEST, MicroBatches
from dpcore.mechanism.clipping import ClippedSum
from dpcore.mechanism.keystream import Keystream
from dpcore.mechanism.sampling import Owners
from dpcore.rehearse import OfTokens, at_length
from dpcore.terms.estimators import ZerothOrder as Terms
from dpcore.terms.speed import Speed

_COPIED = 1 / 16
"""Weights that are at most such a share of the model's are copied before they are moved, and come back to the bit."""
_IN_A_DRAW = 128
"""A draw of records of the largest length has so many micro-batches: each is computed whole, and the last of each
length has room to spare."""
_CHECKED_TOKENS = 32
_MOVE = 0.01
"""How far weights are moved for the rehearsal, along a direction."""
_AT_ONCE = 2**20
"""Numbers of a direction that there are at a time."""


class ZerothOrder:
    """An `Estimator`."""

    dtype = torch.float64

    def __init__(self, setting: Setting) -> None:
        terms = setting.phase.estimator
        assert isinstance(terms, Terms)
        self._terms, self._phase = terms, setting.phase
        self._model, self._task, self._records = setting.model, setting.task, setting.records
        self._owners = None if setting.owners is None else Owners(setting.owners)
        self.units = len(self._records) if self._owners is None else len(self._owners)
        self.parameters = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the model has no trainable parameter")
        self._device = next(iter(self.parameters.values())).device
        values = sum(p.numel() for p in self.parameters.values())
        self._copies = values <= _COPIED * sum(p.numel() for p in self._model.parameters())
        self._seeds: list[int] = []
        self._micro_batches = MicroBatches(
            self._records.lengths,
            max_length=self._task.max_length,
            expected_batch=self._phase.expected_batch,
            row_bytes=1,
            thin=True,
            speed=_small(setting),
            device=self._device,
            release=lambda: None,
            recompute=lambda: False,
            should_stop=setting.should_stop,
        )

    def rehearse(self) -> None:
        """Every padded length, the largest micro-batch, moved weights; records that meet are refused."""
        require_digits(self._model)
        if isinstance(self._task, OfTokens):
            self._task.require_fit(self._model)
        longest = self._task.max_length
        short = min(_CHECKED_TOKENS, longest)
        self._require_apart(short)
        self._micro_batches.rehearse(self._largest)
        shortest = self._task.shortest if isinstance(self._task, OfTokens) else 1
        for length in self._micro_batches.padded_lengths(min(shortest, longest)):
            if not self._same(length):
                self._micro_batches.limit(1)
                break
        with self._moved(0, _MOVE):
            for length in {short, longest}:
                if not self._same(length):
                    self._micro_batches.limit(1)
        self._require_apart(longest)

    def enter(self) -> None:
        """Nothing hangs on the model."""

    def leave(self) -> None:
        """Nothing is kept."""

    def sum(self, drawn: np.ndarray, clip_norm: float, directions: Callable[[], Keystream]) -> ClippedSum:
        """Of K numbers for each unit."""
        count = self._terms.directions
        # A generator of torch takes 63 bits of a seed.
        self._seeds = [int(seed >> np.uint64(1)) for seed in directions().integers(count)]
        total = ClippedSum.zero(
            count,
            clip_norm=clip_norm,
            clipping=self._phase.clipping,
            expected_batch=self._phase.expected_batch,
            device=self._device,
        )
        if len(drawn):
            total.add(Rows(self._slopes(drawn)))
        return total

    def gradients(self, mean: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """sum_k mean_k z_k / K, one parameter after the other, so that there is the gradient of one at a time."""
        generators = [self._generator(seed) for seed in self._seeds]
        for name, parameter in self.parameters.items():
            gradient = torch.zeros_like(parameter, requires_grad=False)
            for piece in _pieces(gradient):
                for weight, generator in zip(mean.tolist(), generators, strict=True):
                    piece.add_(_normal(piece, generator), alpha=weight / len(generators))
            yield {name: gradient}

    def _slopes(self, drawn: np.ndarray) -> Tensor:
        """What each drawn unit says of each direction: float64 [units, K]. A user's records are added up in an order
        that the user alone decides: by padded length, then as they are in the file."""
        records, owner = drawn, np.arange(len(drawn))
        if self._owners is not None:
            of_user = [self._owners.records(user) for user in drawn]
            records, owner = np.concatenate(of_user), np.repeat(owner, [len(some) for some in of_user])
        slopes = torch.zeros(len(drawn), len(self._seeds), dtype=torch.float64)
        for column, seed in enumerate(self._seeds):
            up, down = (self._losses_at(seed, sign * self._terms.scale, records) for sign in (1, -1))
            slopes[:, column].index_add_(0, torch.from_numpy(owner), (up - down) / (2 * self._terms.scale))
        return slopes.to(self._device)

    def _losses_at(self, seed: int, by: float, records: np.ndarray) -> Tensor:
        """Losses of records, float64 [n], with the weights moved along a direction."""
        losses = torch.zeros(len(records), dtype=torch.float64)
        # Micro-batches say which records they had by their place among these.
        place = np.argsort(records, kind="stable")
        with self._moved(seed, by), torch.no_grad():

            def compute(now: np.ndarray, length: int) -> tuple[np.ndarray, Tensor]:
                return now, self._losses(self._records, now, length)

            def take(made: tuple[np.ndarray, Tensor]) -> None:
                where = place[np.searchsorted(records, made[0], sorter=place)]
                losses[torch.from_numpy(where)] = made[1].double().cpu()

            self._micro_batches.each(records, compute, take)
        return losses

    def _losses(self, records: Any, indices: np.ndarray, length: int) -> Tensor:
        """One loss for each index [m], in a micro-batch of the one size that this length has."""
        filled = np.resize(indices, max(len(indices), self._micro_batches.examples(length)))
        losses: Tensor = self._task.losses(self._model, records, filled, length)
        return losses[: len(indices)]

    @contextmanager
    def _moved(self, seed: int, by: float) -> Iterator[None]:
        """Inside, the weights are moved along a direction, also where a stop is asked for; outside they are back."""
        copies = {name: p.detach().clone() for name, p in self.parameters.items()} if self._copies else {}
        try:
            self._move(seed, by)
            yield
        finally:
            if copies:
                with torch.no_grad():
                    for name, p in self.parameters.items():
                        p.copy_(copies[name])
            else:
                self._move(seed, -by)

    @torch.no_grad()
    def _move(self, seed: int, by: float) -> None:
        generator = self._generator(seed)
        for parameter in self.parameters.values():
            for piece in _pieces(parameter):
                piece.add_(_normal(piece, generator), alpha=by)

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(seed)

    def _require_apart(self, length: int) -> None:
        public = self._stand_ins(MORE, length)
        with at_length(length), torch.no_grad():
            require_separate(self._model, lambda: self._task.losses(self._model, public, np.arange(MORE), length))
            require_apart(self._model, lambda now: self._task.losses(self._model, public, now, length))

    def _largest(self, count: int) -> None:
        longest = self._task.max_length
        public = self._task.synthetic(count, longest)
        with at_length(longest), torch.no_grad():
            self._task.losses(self._model, public, np.arange(count), longest)

    def _same(self, length: int) -> bool:
        """Whether a record's loss is the same to the bit at every place of a micro-batch, whoever else is in it. Raises
        MixedExamples where it is another's."""
        size = self._micro_batches.examples(length)
        public = self._stand_ins(max(2, size), length)
        with at_length(length), torch.no_grad():
            alone = self._task.losses(self._model, public, np.zeros(size, dtype=np.int64), length)
            among = self._task.losses(self._model, public, np.arange(size), length)
            turned = self._task.losses(self._model, public, np.roll(np.arange(size), size // 2), length)
        if not torch.allclose(alone[0], among[0], rtol=1e-3, atol=1e-3, equal_nan=True):
            raise MixedExamples(f"a record's loss depends on the others in its batch (padded to {length} tokens)")
        every_place = bool((alone == alone[0]).all()) and bool(alone[0] == among[0])
        return every_place and torch.equal(torch.roll(turned, -(size // 2)), among)

    def _stand_ins(self, count: int, length: int) -> Any:
        return (self._task.mixed if isinstance(self._task, OfTokens) else self._task.synthetic)(count, length)


def _small(setting: Setting) -> Speed:
    """Small micro-batches of few lengths, where nothing else was asked for: from public numbers alone."""
    speed, most = setting.speed, setting.task.max_length
    tokens = max(most, setting.phase.expected_batch * most // _IN_A_DRAW) if speed.tokens == "auto" else speed.tokens
    lengths = COARSEST if speed.lengths_per_doubling == "auto" else speed.lengths_per_doubling
    return speed.model_copy(update={"tokens": tokens, "lengths_per_doubling": lengths})


def _pieces(values: Tensor) -> tuple[Tensor, ...]:
    """Views of all values, a few at a time where they lie in one row."""
    values = values.detach()
    return torch.split(values.view(-1), _AT_ONCE) if values.is_contiguous() else (values,)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


make = ZerothOrder
