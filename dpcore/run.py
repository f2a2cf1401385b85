"""A program from its first phase to its last: everything is rehearsed before anything is paid, and each phase goes on
from what the one before it released."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from dpcore import checkpoint as checkpoints
from dpcore.estimators import Setting
from dpcore.estimators import make as make_estimator
from dpcore.explicit_mask import explicit_masks
from dpcore.mechanism.keystream import Streams
from dpcore.tasks.image_classification import ImageClassification
from dpcore.terms.program import Phase, Program
from dpcore.terms.speed import Speed
from dpcore.train import Between, Ended, Iterate, PhaseRun
from dpcore.views import OfViews, viewed
from dpcore.views import owners as owners_of_views

Begin = Callable[[nn.Module, Phase, dict[str, Tensor]], None]
"""Let train what a phase trains: begin(model, phase, kept), where `kept` is what the method kept between its steps."""

Learns = Callable[[nn.Module, Phase, Any], Any]
"""The task as a phase learns it: learns(model, phase, task)."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `step` counts all iterations of the model, those before a resume included; those that were paid
    for and lost are none. used_up: at least one phase had fewer than it was planned with."""

    step: int
    ended: Ended
    measured: tuple[float, float] | None = None
    """The noised sums of the last phase, where that measures; None too where what was paid for it was lost."""


@dataclass(frozen=True)
class HeldOutUnits:
    """Units that no phase trains on: their encoded records, and the user of each, int64 [n], where that is the unit."""

    records: Any
    owners: np.ndarray | None = None


def as_attached(model: nn.Module, phase: Phase, kept: dict[str, Tensor]) -> None:
    """What trains is what trained when the method was attached."""


def as_it_is(model: nn.Module, phase: Phase, task: Any) -> Any:
    """Every phase learns the task itself."""
    return task


def nothing(iterate: Iterate) -> bool:
    """Nothing is done between steps."""
    return False


def run(
    *,
    model: nn.Module,
    task: Any,
    records: Any,
    program: Program,
    authorise: Callable[[int, int], int],
    save: Callable[[bytes], None],
    should_stop: Callable[[], bool],
    checkpoint: bytes | None = None,
    owners: np.ndarray | None = None,
    held_out: HeldOutUnits | None = None,
    speed: Speed | None = None,
    streams: Streams | None = None,
    begin: Begin = as_attached,
    learns: Learns = as_it_is,
    between: Between = nothing,
) -> Outcome:
    """Train `model` privately under `program`.

    authorise(phase, n): called before every chunk of steps of a phase, numbered from 0; says how many of the n may run.
    0: what the phase has reserved is used up. An indivisible phase is asked for once, whole.
    save(data): called after every chunk, and at a stop, with a checkpoint, which nobody but another attempt may see.
    should_stop(): asked before every step and micro-batch; the step it interrupts is thrown away, and stays paid for.
    checkpoint: what an earlier attempt saved; sampling and noise are drawn afresh.
    owners: the user of each record, numbered from 0: int64 [n]; needed when the program's unit is the user, and only
    then. held_out: what a last phase that measures looks at, and nothing else does. streams: for tests alone. Left out,
    the randomness comes from the operating system.
    begin, learns, between: what the method does at the start of a phase, what it makes of the task there, and what it
    does after each step.

    When the run ends for good, the model holds what the last phase asks for: its last iterate, or the average of all. A
    run that was stopped leaves the last iterate, and both in the checkpoint.

    Raises PlanMismatch for a checkpoint of another program; NotTrainable before the first step when the model cannot be
    trained exactly in any phase that is left; Interrupted; and whatever the callables raise.
    """
    require_fitting(task, records, program, owners)
    if held_out is not None:
        require_fitting(task, held_out.records, program, held_out.owners)
    elif program.measurement is not None:
        raise ValueError("a program that measures needs the units that were held out")
    speed, streams = speed or Speed(), streams or Streams()
    saved = None if checkpoint is None else checkpoints.loads(checkpoint)
    first = 0 if saved is None else saved.phase
    if saved is not None:
        checkpoints.require_same(saved, program)
    touched: dict[str, nn.Parameter] = {}
    trained, seen, whose, unit = task, records, owners, program.unit
    if program.views > 1:
        # The views of a record are to it what records are to a user: summed before their norm is taken.
        trained, seen = OfViews(task, program.views), viewed(records, program.views, streams.at("views", 0))
        whose, unit = owners_of_views(len(records), owners, program.views), "user"
    with explicit_masks():
        settings = [
            Setting(model, learns(model, p, trained), seen, whose, unit, p, speed, should_stop)
            for p in program.training
        ]
        if program.measurement is not None and held_out is not None:
            # By the task itself, whatever the method has learnt it by.
            own = (held_out.records, held_out.owners, program.unit)
            settings.append(Setting(model, task, *own, program.measurement, speed, should_stop))
        estimators = []
        for index, setting in enumerate(settings):
            if not setting.phase.measures:
                begin(model, setting.phase, {})
            if index < first:
                touched |= trainable(model)
                continue
            estimators.append(make_estimator(setting))
            # The weights are still the public ones, so that no refusal depends on what an earlier attempt has learnt.
            estimators[-1].rehearse()
            if index > first:
                estimators[-1].leave()  # its buffers wait until its turn
        used_up, done = False, 0 if saved is None else saved.before
        kept: dict[str, Tensor] = {}
        measured = None
        for index, estimator in enumerate(estimators, start=first):
            setting = settings[index]
            measures, last = setting.phase.measures, program.training[min(index, len(program.training) - 1)]
            if len(program.training) > 1 and not measures:
                begin(model, setting.phase, {})
            now = PhaseRun(program, index, setting, estimator, touched=touched, before=done, kept=kept)
            if saved is not None and index == first:
                now.restore(saved, partial(begin, model, last))
            ended = now.go_on(partial(authorise, index), save, should_stop, streams, nothing if measures else between)
            used_up = used_up or ended == "used_up"
            if measures:
                measured = _sums(now.released)
            else:
                done += now.step
                # What is measured is the model as training left it, also after a resume.
                kept = now.kept if index + 1 == len(program.training) else {}
            if ended == "stopped":
                return Outcome(done, "stopped")
    return Outcome(done, "used_up" if used_up else "finished", measured)


def _sums(released: Mapping[str, Tensor]) -> tuple[float, float] | None:
    """The two numbers that a measurement released, if it did."""
    if not released:
        return None
    (sums,) = released.values()
    x, y = sums.tolist()
    return x, y


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def require_fitting(task: Any, records: Any, program: Program, owners: np.ndarray | None) -> None:
    """Raises ValueError."""
    if program.views > 1 and not isinstance(task, ImageClassification):
        raise ValueError("views are of pictures alone")
    if task.max_length != program.max_length:
        raise ValueError(f"the task cuts at {task.max_length} tokens, the program says {program.max_length}")
    if (owners is None) != (program.unit == "record") or (owners is not None and len(owners) != len(records)):
        raise ValueError("a program whose unit is the user needs the owner of each record; another has none")
