"""How far each drawn user moves the weights by training on its own records alone, clipped as one vector and added up.

Guarantee: every user begins at the same weights and buffers, which are back before the next one begins and before
anything else can read them, also when it is stopped or fails; so that a user that leaves takes its own clipped vector
with it, and moves nobody else's. Its steps are plain descent, whose state does not outlive them.

Edge cases: a user whose training ends in a NaN or an infinity adds nothing; one without a record that has room in
`most_tokens` adds nothing either.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.engine.errors import NotTrainable
from dpcore.engine.rehearsal import evaluating
from dpcore.estimators import Setting
from dpcore.machine.micro_batches import Stopped
from dpcore.mechanism.clipping import ClippedSum, OneVector
from dpcore.mechanism.keystream import Keystream
from dpcore.mechanism.sampling import Owners, first_within
from dpcore.rehearse import OfTokens
from dpcore.terms.estimators import Local as LocalTerms


@runtime_checkable
class Drawing(Protocol):
    """A task that draws for its losses, by public randomness alone."""

    def begin_round(self, stream: Keystream) -> None:
        """What the users of a round draw by."""

    def begin_user(self, user: int) -> None:
        """Draws of this user alone, the same whoever else is drawn: a user that leaves moves nobody else's vector, and
        those of many average out."""


class Local:
    """An `Estimator` of users."""

    def __init__(self, setting: Setting) -> None:
        assert isinstance(setting.phase.estimator, LocalTerms)
        assert setting.owners is not None, "local training is of users"
        self._setting, self._terms = setting, setting.phase.estimator
        self._owners = Owners(setting.owners)
        self.units = len(self._owners)
        self.parameters: Mapping[str, nn.Parameter] = {
            name: p for name, p in setting.model.named_parameters() if p.requires_grad
        }
        self._buffers = [*setting.model.buffers()]
        first = next(iter(self.parameters.values()))
        self.dtype, self._device = torch.promote_types(first.dtype, torch.float32), first.device
        self._lengths = np.asarray(setting.records.lengths)

    def rehearse(self) -> None:
        """A public user with a whole local batch of the longest records, and one with some of each length, on the
        public weights. Raises NotTrainable."""
        task, terms = self._setting.task, self._terms
        if isinstance(task, OfTokens):
            task.require_fit(self._setting.model)
        if isinstance(task, Drawing):
            task.begin_round(Keystream(bytes(32)))
        for made in (task.synthetic, task.mixed):
            with evaluating(self._setting.model):
                moved = self._moved(made(terms.batch_size, task.max_length), np.arange(terms.batch_size), 0)
            if not moved.isfinite().all():
                raise NotTrainable(
                    "training on public records ends in numbers that are not finite: take a lower learning rate"
                )

    def enter(self) -> None:
        """Nothing of the model is this estimator's own."""

    def sum(self, drawn: np.ndarray, clip_norm: float, directions: Callable[[], Keystream]) -> ClippedSum:
        """Of the drawn users' vectors. There are no directions: their stream is for a task that draws."""
        phase, task = self._setting.phase, self._setting.task
        if isinstance(task, Drawing):
            task.begin_round(directions())
        total = ClippedSum.zero(
            sum(p.numel() for p in self.parameters.values()),
            clip_norm=clip_norm,
            clipping=phase.clipping,
            expected_batch=phase.expected_batch,
            device=self._device,
        )
        with evaluating(self._setting.model):
            for user in map(int, drawn):
                if self._setting.should_stop():
                    raise Stopped
                records = first_within(self._owners.records(user), self._lengths, self._terms.most_tokens)
                total.add(OneVector(self._moved(self._setting.records, records, user)))
        return total

    def gradients(self, mean: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """The noised mean, turned: descent goes where users went."""
        parts = torch.split(-mean, [p.numel() for p in self.parameters.values()])
        named = zip(self.parameters.items(), parts, strict=True)
        yield {name: part.view(p.shape) for (name, p), part in named}

    def leave(self) -> None:
        """Nothing is kept."""

    def _moved(self, records: Any, indices: np.ndarray, user: int) -> Tensor:
        """What a user's training on these records moves: float64 [P]. The weights are as they were."""
        setting, terms = self._setting, self._terms
        if isinstance(setting.task, Drawing):
            setting.task.begin_user(user)
        with self._as_before() as before:
            for step in range(terms.local_steps if len(indices) else 0):
                now = indices.take(range(step * terms.batch_size, (step + 1) * terms.batch_size), mode="wrap")
                now = now[: len(indices)]
                length = int(np.asarray(records.lengths)[now].max())
                with torch.enable_grad():
                    loss = setting.task.losses(setting.model, records, now, length).mean()
                    found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
                with torch.no_grad():
                    for parameter, gradient in zip(self.parameters.values(), found, strict=True):
                        if gradient is not None:
                            parameter.sub_(gradient, alpha=terms.learning_rate)
            moved = [(p.detach().double() - before[name]).flatten() for name, p in self.parameters.items()]
        return torch.cat(moved)

    @contextmanager
    def _as_before(self) -> Iterator[Mapping[str, Tensor]]:
        """Weights that train, and all buffers, are put back in the end; the former are handed in."""
        buffers = [(b, b.detach().clone()) for b in self._buffers]
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        try:
            yield before
        finally:
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(before[name])
                for b, value in buffers:
                    b.copy_(value)


make = Local
