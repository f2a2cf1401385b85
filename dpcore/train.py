"""The one training loop, over the steps of one phase: draw, sum, noise, apply, between. It knows tensors and callables,
no file, job or database.

Pitfalls that this file holds shut: noise and divisor come from the phase, never from the draw; an empty draw is a step
like any other; a step runs only after it was authorised; what a step computed before its noise goes nowhere else; no
loss, norm or batch size is reported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dpcore import checkpoint as checkpoints
from dpcore import optimise
from dpcore.checkpoint import Checkpoint
from dpcore.estimators import Estimator, Setting
from dpcore.estimators import make as make_estimator
from dpcore.machine.micro_batches import Stopped
from dpcore.mechanism import output
from dpcore.mechanism.keystream import Streams
from dpcore.terms.program import Phase, Program

Ended = Literal["finished", "used_up", "stopped"]


class Interrupted(RuntimeError):
    """An indivisible phase was paid for and then lost before it could be kept: what it was on the way to is no output,
    and may not be released."""


@dataclass
class Iterate:
    """A noised iterate, for a method that acts between steps. It may change the weights, the model's layers, the
    optimiser's state, the averages, what requires a gradient, and `kept`, which is saved with the weights and handed
    back at a resume."""

    model: nn.Module
    phase: Phase
    step: int
    """Steps of this phase that were done."""
    kept: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    averages: dict[str, Tensor]
    """Of the iterates so far, by parameter name; empty where nothing is averaged."""
    over: bool = False
    """The phase ends here with fewer steps than planned, after its last `between`: what had to be done by the end is
    done now, or never."""


Between = Callable[[Iterate], bool]
"""What a method does after a step; True when it changed what trains."""


class PhaseRun:
    """The state of one attempt at one phase."""

    def __init__(
        self,
        program: Program,
        index: int,
        setting: Setting,
        estimator: Estimator,
        *,
        touched: dict[str, nn.Parameter],
        before: int,
        step: int = 0,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        """touched: parameters that earlier phases trained, by name; what this one trains is added. before: iterations
        of earlier phases. step: of the phase that others have done, whose optimiser is not gone on with. kept: what the
        method keeps of a phase before, where this one changes nothing of it."""
        self.phase, self.step = program.phases[index], step
        self._program, self._index, self._setting = program, index, setting
        self._estimator, self._touched, self._before = estimator, touched, before
        self._clip_norm, self._paid, self._kept = self.phase.clip_norm, False, dict(kept or {})
        self._prepare()

    def _prepare(self) -> None:
        """An optimiser and averages over what trains now."""
        self._parameters = self._estimator.parameters
        self._touched.update(self._parameters)
        self._optimiser = optimise.make(self._parameters, self.phase)
        self._averages = optimise.averages(self._parameters) if self.phase.weight_averaging else {}

    @property
    def kept(self) -> dict[str, Tensor]:
        """What the method keeps between steps."""
        return self._kept

    @property
    def released(self) -> Mapping[str, Tensor]:
        """What the phase's steps have made of its parameters, by name; nothing before the first of them."""
        return self._parameters if self.step else {}

    def restore(self, saved: Checkpoint, begin: Callable[[dict[str, Tensor]], None]) -> None:
        """Go on from what an earlier attempt kept. begin(kept): let train what trained then. Raises PlanMismatch."""
        self._kept = dict(saved.kept)
        if self._kept:
            begin(self._kept)
            self._follow()
        checkpoints.restore(saved, self._touched, self._parameters, self._optimiser, self._averages)
        if not self._kept:
            begin(self._kept)  # the weights of earlier phases are back, by which a method may choose what trains
        self.step, self._clip_norm, self._paid = saved.step, saved.clip_norm, saved.paid

    def go_on(
        self,
        authorise: Callable[[int], int],
        save: Callable[[bytes], None],
        should_stop: Callable[[], bool],
        streams: Streams,
        between: Between,
        *,
        until: int | None = None,
    ) -> Ended:
        """From the step that was reached to the phase's end, or to the step `until`, or until what was reserved is used
        up or a stop is asked for. Raises Interrupted, and whatever the callables raise."""
        self._estimator.enter()
        last = self.phase.steps if until is None else until
        while self.step < last:
            if should_stop():
                return "stopped"
            allowed = self._allowed(authorise, save, last)
            if allowed <= 0:
                if between(self._iterate_now(over=True)):
                    self._follow()
                return self._finish("used_up")
            try:
                for _ in range(allowed):
                    self._iterate(should_stop, streams, between)
            except Stopped:
                save(self.dumps())
                return "stopped"
            save(self.dumps())
        return self._finish("finished")

    def _allowed(self, authorise: Callable[[int], int], save: Callable[[bytes], None], last: int) -> int:
        """How many steps may run now, up to the step `last`."""
        asked = min(self._program.chunk, last - self.step)
        if not self.phase.mechanism.indivisible:
            return min(authorise(asked), asked)
        if not self._paid:
            if authorise(self.phase.steps) < self.phase.steps:
                raise Interrupted(f"the phase {self.phase.name} was paid for, and nothing of it is left")
            self._paid = True
            save(self.dumps())  # another attempt cannot pay for it again
        return asked

    def _iterate_now(self, *, over: bool = False) -> Iterate:
        averages = self._averages
        return Iterate(self._setting.model, self.phase, self.step, self._kept, self._optimiser, averages, over)

    def _iterate(self, should_stop: Callable[[], bool], streams: Streams, between: Between) -> None:
        """One iteration: one draw, one noise."""
        phase, number = self.phase, self._program.before(self._index) + self.step
        drawn = output.draw(phase, streams.at("sampling", number), self._estimator.units)
        if should_stop():
            raise Stopped
        total = self._estimator.sum(drawn, self._clip_norm, lambda: streams.at("directions", number))
        made = output.noised(phase, total, self._clip_norm, streams.at("noise", number), dtype=self._estimator.dtype)
        self._clip_norm = made.clip_norm
        gradients = self._estimator.gradients(made.mean)
        optimise.step(
            self._optimiser, self._parameters, gradients, phase=phase, done=self.step, deviation=made.deviation
        )
        self.step += 1
        if self._averages:
            optimise.average(self._averages, self._parameters, decay=phase.weight_averaging, done=self.step)
        if between(self._iterate_now()):
            self._follow()

    def _follow(self) -> None:
        """Train what requires a gradient now. What still trains keeps its moments and its average, and what has gone
        from the model is forgotten; a parameter is known by identity, since layers may have got other numbers."""
        state, named = self._optimiser.state, self._parameters
        averages = {named[name]: average for name, average in self._averages.items()}
        trained = {*self._touched.values()}
        self._touched.clear()
        self._touched.update({n: p for n, p in self._setting.model.named_parameters() if p in trained})
        self._estimator.leave()
        self._estimator = make_estimator(self._setting)
        self._estimator.rehearse()
        self._estimator.enter()
        self._prepare()
        for name, parameter in self._parameters.items():
            if parameter in state:
                self._optimiser.state[parameter] = state[parameter]
            if parameter in averages:
                self._averages[name] = averages[parameter]

    def dumps(self) -> bytes:
        """The run as it is, for another attempt to go on from."""
        return checkpoints.dumps(
            Checkpoint(
                phase=self._index,
                step=self.step,
                program=self._program,
                clip_norm=self._clip_norm,
                paid=self._paid,
                weights=dict(self._touched),
                averages=self._averages,
                moments={name: self._optimiser.state[p] for name, p in self._parameters.items()},
                kept=self._kept,
                before=self._before,
            )
        )

    def _finish(self, ended: Ended) -> Ended:
        """Leave in the model what the phase was for. A phase without a step has no average."""
        if self.step:
            with torch.no_grad():
                for name, average in self._averages.items():
                    self._parameters[name].copy_(average)
        self._estimator.leave()
        return ended
