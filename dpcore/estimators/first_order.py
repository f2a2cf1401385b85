"""First order: the clipped sum of the units' gradients, from one backward pass a micro-batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcore import rehearse
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.per_user import CANCELLING, USER_BYTES, UserGradient, UserGradients
from dpcore.engine.rows import Rows
from dpcore.engine.tape import Gradients
from dpcore.estimators import Setting
from dpcore.machine import recompute
from dpcore.machine.micro_batches import MicroBatches
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK
from dpcore.mechanism.clipping import ClippedSum, by_module
from dpcore.mechanism.keystream import Keystream
from dpcore.mechanism.sampling import Owners


class FirstOrder:
    """An `Estimator`."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._phase = setting, setting.phase
        self._model, self._task, self._records = setting.model, setting.task, setting.records
        self._owners = None if setting.owners is None else Owners(setting.owners)
        self.units = len(self._records) if self._owners is None else len(self._owners)
        self._engine: PerExample | OneByOne = PerExample(self._model)
        self.parameters = self._engine.parameters
        self.dtype = torch.promote_types(next(iter(self.parameters.values())).dtype, torch.float32)
        self._slack, self._groups = ROUNDING_SLACK, by_module(self.parameters)
        self._memory: Tensor | None = None
        if setting.speed.recompute:
            self._recompute()
        self._micro_batches = MicroBatches(
            self._records.lengths,
            max_length=self._task.max_length,
            expected_batch=self._phase.expected_batch,
            row_bytes=self._engine.row_bytes,
            thin=self._engine.thin,
            speed=setting.speed,
            device=self._engine.device,
            release=self._engine.release,
            recompute=self._recompute,
            should_stop=setting.should_stop,
        )

    def rehearse(self) -> None:
        """The weights are still the public ones, so that no refusal depends on what an earlier attempt has learnt."""
        self.enter()
        try:
            self._rehearse()
        except rehearse.SLOWLY:
            self._engine.release()
            self._engine = OneByOne(self._model)
            self._micro_batches.limit(1)
            self._rehearse()

    def _rehearse(self) -> None:
        def take(gradients: Gradients | Rows) -> None:
            self._zero(self._phase.clip_norm).add(gradients)

        self._slack = rehearse.Rehearsal(self._model, self._task, self._engine, self._micro_batches, take).run()

    def enter(self) -> None:
        """Layers that are computed again are intercepted by this engine."""
        recompute.rebind(self._model, lambda: self._engine.recomputing())

    def sum(self, drawn: np.ndarray, clip_norm: float, directions: Callable[[], Keystream]) -> ClippedSum:
        """Of gradients; there are no directions."""
        total = self._zero(clip_norm)
        if self._owners is None:
            self._add_records(total, drawn)
        elif self._users_share:
            self._add_users(total, drawn, self._owners)
        else:
            for user in drawn:
                self._add_user(total, self._owners.records(user))
        return total

    def gradients(self, mean: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """The mean is their gradient."""
        yield self._engine.unflatten(mean)

    def leave(self) -> None:
        """Buffers and the sum's memory."""
        self._engine.release()
        self._memory = None

    def _zero(self, clip_norm: float) -> ClippedSum:
        """The sum over no units."""
        if self._memory is None:
            self._memory = torch.empty(self._engine.width, dtype=torch.float64, device=self._engine.device)
        return ClippedSum.zero(
            self._engine.width,
            clip_norm=clip_norm,
            clipping=self._phase.clipping,
            expected_batch=self._phase.expected_batch,
            device=self._engine.device,
            groups=self._groups,
            rounding=self._slack * (CANCELLING if self._users_share else 1),
            memory=self._memory,
        )

    @property
    def _users_share(self) -> bool:
        """Whether the records of several users share micro-batches."""
        # The bound on how far a user's records cancel holds for all layers together, and each is clipped on its own.
        together = self._setting.unit == "user" and self._phase.clipping != "per-layer"
        return together and isinstance(self._engine, PerExample) and self._engine.thin

    def _recompute(self) -> bool:
        """Compute layers again in the backward pass from now on; False where that is so, or cannot be."""
        return recompute.switch_on(self._model, lambda: self._engine.recomputing())

    def _gradients(self, records: Any, indices: np.ndarray, length: int) -> Gradients | Rows:
        """Gradients of some records, in one micro-batch."""
        return self._engine.gradients(lambda: self._task.losses(self._model, records, indices, length), len(indices))

    def _add_records(self, total: ClippedSum, drawn: np.ndarray) -> None:
        """Add the drawn records to the sum, each a unit of its own."""
        self._micro_batches.each(drawn, lambda now, length: self._gradients(self._records, now, length), total.add)

    def _add_users(self, total: ClippedSum, drawn: np.ndarray, owners: Owners) -> None:
        """Add the drawn users to the sum, as many at a time as buffers have room for; their records share batches."""
        most = max(1, self._micro_batches.buffer_bytes // (USER_BYTES * self._engine.width))
        for start in range(0, len(drawn), most):
            some = drawn[start : start + most]
            users = UserGradients(self._engine, len(some))

            def gradients(now: np.ndarray, length: int, some: np.ndarray = some) -> tuple[Gradients | Rows, np.ndarray]:
                return self._gradients(self._records, now, length), np.searchsorted(some, owners.of(now))

            def add(made: tuple[Gradients | Rows, np.ndarray], users: UserGradients = users) -> None:
                users.add(*made)

            self._micro_batches.each(np.concatenate([owners.records(user) for user in some]), gradients, add)
            together, alone = users.finish()
            total.add(together)
            for user in some[alone]:
                self._add_user(total, owners.records(user))

    def _add_user(self, total: ClippedSum, records: np.ndarray) -> None:
        """Add one user to the sum: all of its records together are the unit."""
        user = UserGradient(self._engine)

        def gradient(now: np.ndarray, length: int) -> Tensor:
            return user.of(lambda: self._task.losses(self._model, self._records, now, length))

        self._micro_batches.each(records, gradient, user.add)
        total.add(user.gradients())


make = FirstOrder
