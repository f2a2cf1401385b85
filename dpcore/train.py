"""The one training loop: draw, clip, add noise, step. It knows tensors and callables, no file, job or database.

Pitfalls that this file holds shut: noise and divisor come from the plan, never from the draw; an empty draw is a step
like any other; a step runs only after it was authorised; what a step computed before its noise goes nowhere else; no
loss, norm or batch size is reported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dpcore import checkpoint as checkpoints
from dpcore import optimise, rehearse
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.per_user import CANCELLING, USER_BYTES, UserGradient, UserGradients
from dpcore.engine.rows import Rows
from dpcore.engine.tape import Gradients
from dpcore.explicit_mask import explicit_masks
from dpcore.machine import recompute
from dpcore.machine.micro_batches import MicroBatches, Stopped
from dpcore.mechanism import adaptive
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK
from dpcore.mechanism.clipping import ClippedSum, by_module
from dpcore.mechanism.keystream import Streams
from dpcore.mechanism.noise import noised_mean
from dpcore.mechanism.sampling import Owners, poisson
from dpcore.rehearse import Task
from dpcore.terms.plan import Plan, Speed


class Records(Protocol):
    """Encoded records of a file."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int64 [n]."""


R = TypeVar("R", bound=Records)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `step` counts all iterations of the model, those before a resume included."""

    step: int
    ended: Literal["finished", "used_up", "stopped"]


def train(
    *,
    model: nn.Module,
    task: Task[R],
    records: R,
    plan: Plan,
    authorise: Callable[[int], int],
    save: Callable[[bytes], None],
    should_stop: Callable[[], bool],
    checkpoint: bytes | None = None,
    owners: np.ndarray | None = None,
    speed: Speed | None = None,
    streams: Streams | None = None,
) -> Outcome:
    """Train the parameters of `model` that require a gradient, privately, under `plan`.

    authorise(n): called before every chunk of steps; says how many of the n may run. 0: the reservation is used up.
    save(data): called after every chunk, and at a stop, with a checkpoint.
    should_stop(): asked before every step and micro-batch; the step it interrupts is thrown away, and stays paid for.
    checkpoint: what an earlier attempt saved; sampling and noise are drawn afresh.
    owners: the user of each record, numbered from 0: int64 [n]; needed when the plan's unit is the user, and only then.
    streams: for tests alone. Left out, the randomness comes from the operating system.

    When the run ends for good, the model holds what the plan asks for: the last iterate, or the average of all. A run
    that was stopped leaves the last iterate, and both in the checkpoint.

    Raises PlanMismatch for a checkpoint of another plan; NotTrainable before the first step when the model cannot be
    trained exactly; and whatever the callables raise.
    """
    run = _Run(model, task, records, plan, owners, should_stop, speed or Speed(), streams or Streams())
    with explicit_masks():
        run.rehearse()
        if checkpoint is not None:
            run.restore(checkpoint)
        return _go_on(run, plan, authorise, save, should_stop)


def _go_on(
    run: "_Run[R]",
    plan: Plan,
    authorise: Callable[[int], int],
    save: Callable[[bytes], None],
    should_stop: Callable[[], bool],
) -> Outcome:
    """From the step that a run has reached to its end."""
    while run.step < plan.steps:
        if should_stop():
            return Outcome(run.step, "stopped")
        asked = min(plan.chunk, plan.steps - run.step)
        allowed = authorise(asked)
        if allowed <= 0:
            return run.finish("used_up")
        try:
            for _ in range(min(allowed, asked)):
                run.iterate()
        except Stopped:
            save(run.dumps())
            return Outcome(run.step, "stopped")
        save(run.dumps())
    return run.finish("finished")


class _Run(Generic[R]):
    """The state of one attempt."""

    def __init__(
        self,
        model: nn.Module,
        task: Task[R],
        records: R,
        plan: Plan,
        owners: np.ndarray | None,
        should_stop: Callable[[], bool],
        speed: Speed,
        streams: Streams,
    ) -> None:
        if task.max_length != plan.max_length:
            raise ValueError(f"the task cuts at {task.max_length} tokens, the plan says {plan.max_length}")
        if (owners is None) != (plan.unit == "record") or (owners is not None and len(owners) != len(records)):
            raise ValueError("a plan whose unit is the user needs the owner of each record; another plan has none")
        self.step = 0
        self._model, self._task, self._records, self._plan = model, task, records, plan
        self._owners = None if owners is None else Owners(owners)
        self._should_stop, self._streams = should_stop, streams
        self._engine: PerExample | OneByOne = PerExample(model)
        self._parameters = self._engine.parameters
        self._optimiser = optimise.make(self._parameters, plan)
        self._averages = optimise.averages(self._parameters) if plan.weight_averaging else {}
        self._clip_norm, self._slack = plan.clip_norm, ROUNDING_SLACK
        self._groups = by_module(self._parameters)
        self._dtype = torch.promote_types(next(iter(self._parameters.values())).dtype, torch.float32)
        self._memory = torch.empty(self._engine.width, dtype=torch.float64, device=self._engine.device)
        if speed.recompute:
            self._recompute()
        self._micro_batches = MicroBatches(
            records.lengths,
            max_length=task.max_length,
            expected_batch=plan.expected_batch,
            row_bytes=self._engine.row_bytes,
            thin=self._engine.thin,
            speed=speed,
            device=self._engine.device,
            release=self._engine.release,
            recompute=self._recompute,
            should_stop=should_stop,
        )

    def rehearse(self) -> None:
        """Run public stand-in records: what cannot be trained fails here, before any step.

        The weights are still the public ones, so that no refusal depends on what an earlier attempt has learnt.
        """
        try:
            self._rehearse()
        except rehearse.SLOWLY:
            self._engine.release()
            self._engine = OneByOne(self._model)
            self._micro_batches.limit(1)
            self._rehearse()

    def _rehearse(self) -> None:
        def take(gradients: Gradients | Rows) -> None:
            self._zero().add(gradients)

        self._slack = rehearse.Rehearsal(self._model, self._task, self._engine, self._micro_batches, take).run()

    def iterate(self) -> None:
        """One iteration: one draw, one noise."""
        plan = self._plan
        units = len(self._records) if self._owners is None else len(self._owners)
        drawn = poisson(self._streams.at("sampling", self.step), units, plan.sample_rate)
        total = self._zero()
        if self._should_stop():
            raise Stopped
        if self._owners is None:
            self._add_records(total, drawn)
        elif self._users_share:
            self._add_users(total, drawn, self._owners)
        else:
            for user in drawn:
                self._add_user(total, self._owners.records(user))
        mean, deviation = self._noised(total)
        optimise.step(
            self._optimiser,
            self._parameters,
            self._engine.unflatten(mean),
            plan=plan,
            done=self.step,
            deviation=deviation,
        )
        self.step += 1
        if self._averages:
            optimise.average(self._averages, self._parameters, decay=plan.weight_averaging, done=self.step)

    def _noised(self, total: ClippedSum) -> tuple[Tensor, float]:
        """The step's noised mean [P] and the deviation of its noise. A clip norm that adapts moves on."""
        plan, stream, noise = self._plan, self._streams.at("noise", self.step), self._plan.noise_multiplier
        if total.below is not None:
            noise, count_noise = adaptive.split(noise)
            score = noised_mean(total.below, count_noise, plan.expected_batch, stream)
            self._clip_norm = adaptive.next_clip_norm(self._clip_norm, score.item())
        deviation = noise * total.sensitivity / plan.expected_batch
        mean = noised_mean(total, noise, plan.expected_batch, stream, dtype=self._dtype)
        return mean, deviation

    def _zero(self) -> ClippedSum:
        """The sum over no units."""
        return ClippedSum.zero(
            self._engine.width,
            clip_norm=self._clip_norm,
            clipping=self._plan.clipping,
            expected_batch=self._plan.expected_batch,
            device=self._engine.device,
            groups=self._groups,
            rounding=self._slack * (CANCELLING if self._users_share else 1),
            memory=self._memory,
        )

    @property
    def _users_share(self) -> bool:
        """Whether the records of several users share micro-batches."""
        # The bound on how far a user's records cancel holds for all layers together, and each is clipped on its own.
        together = self._plan.unit == "user" and self._plan.clipping != "per-layer"
        return together and isinstance(self._engine, PerExample) and self._engine.thin

    def _recompute(self) -> bool:
        """Compute layers again in the backward pass from now on; False where that is so, or cannot be."""
        return recompute.switch_on(self._model, lambda: self._engine.recomputing())

    def _gradients(self, records: R, indices: np.ndarray, length: int) -> Gradients | Rows:
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

    def dumps(self) -> bytes:
        """The run as it is, for another attempt to go on from."""
        return checkpoints.dumps(
            self.step,
            self._plan,
            self._parameters,
            self._optimiser,
            averages=self._averages,
            clip_norm=self._clip_norm,
        )

    def restore(self, data: bytes) -> None:
        saved = checkpoints.loads(data)
        checkpoints.restore(saved, self._plan, self._parameters, self._optimiser, self._averages)
        self.step, self._clip_norm = saved.step, saved.clip_norm

    def finish(self, ended: Literal["finished", "used_up"]) -> Outcome:
        """Leave in the model what the run was for. A run without a step has no average."""
        if self.step:
            with torch.no_grad():
                for name, average in self._averages.items():
                    self._parameters[name].copy_(average)
        return Outcome(self.step, ended)
