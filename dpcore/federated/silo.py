"""A silo's side: a round of local steps on its private file, by the same loop as every other job's, from the factors
that all silos begin at to the message that leaves.

Guarantee: over all rounds a silo's steps are those of its own program, each run once at most: a round is a range of
them. What leaves are its noised iterates, less what was public before. With a delta the local steps are not noised, and
nothing of them is kept but their one clipped and noised change (`dpcore/estimators/delta.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore import checkpoint as checkpoints
from dpcore.checkpoint import PlanMismatch
from dpcore.estimators import Estimator, Setting
from dpcore.estimators import make as make_estimator
from dpcore.explicit_mask import explicit_masks
from dpcore.federated import tensors
from dpcore.federated.message import Expected, Message, sha256
from dpcore.mechanism.keystream import Streams
from dpcore.methods import lora
from dpcore.run import nothing, require_fitting, trainable
from dpcore.terms.federated.options import Options
from dpcore.terms.program import Program
from dpcore.terms.speed import Speed
from dpcore.terms.tasks import TaskKind
from dpcore.train import PhaseRun


def attach(model: PreTrainedModel, options: Options, *, task: TaskKind, seed: int) -> PeftModel:
    """As LoRA; what no round trains is frozen. All of it comes from the public seed alone, the same in every
    silo. Raises ValueError."""
    adapted = lora.attach(model, options.lora.model_dump(), task=task, seed=seed)
    for name, parameter in trainable(adapted).items():
        parameter.requires_grad_(any(options.trains(name, round) for round in options.kinds))
    return adapted


def factors(model: nn.Module) -> dict[str, Tensor]:
    """The weights that some round trains, as they are, by name: of a model that no round has changed."""
    return {name: p.detach().clone() for name, p in trainable(model).items()}


def put(model: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Put the server's factors into the model. Raises PlanMismatch for another model's, and for numbers that are not
    finite, before anything is changed."""
    there = dict(model.named_parameters())
    if any(name not in there or there[name].shape != value.shape for name, value in factors.items()):
        raise PlanMismatch("the factors are not those of this model")
    if not all(value.isfinite().all() for value in factors.values()):
        raise PlanMismatch("the factors have numbers that are not finite")
    with torch.no_grad():
        for name, value in factors.items():
            there[name].copy_(value)


class Silo:
    """One silo's model, file and program over all rounds.

    model: as `attach` made it; several silos of a simulation may share one. Raises NotTrainable when it cannot be
    trained exactly in some round, before anything is paid, and ValueError for a task or owners that do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        model: nn.Module,
        task: Any,
        records: Any,
        program: Program,
        options: Options,
        owners: np.ndarray | None = None,
        speed: Speed | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name, self._program, self._options, self._should_stop = name, program, options, should_stop
        (phase,) = program.phases
        if phase.steps != options.rounds * options.steps_each:
            raise ValueError("the program's steps are not those of its rounds")
        require_fitting(task, records, program, owners)
        self._model = model
        self._setting = Setting(model, task, records, owners, program.unit, phase, speed or Speed(), should_stop)
        self._all = trainable(model)
        self._estimators: dict[int, Estimator] = {}
        with explicit_masks():
            for round in options.kinds:
                self._choose(round)
                self._estimators[round] = make_estimator(self._setting)
                self._estimators[round].rehearse()
                self._estimators[round].leave()
        self._choose(None)

    def _choose(self, round: int | None) -> None:
        """Let train what this round trains; None: what some round does."""
        for name, p in self._all.items():
            p.requires_grad_(round is None or self._options.trains(name, round))

    def expected(self, job: str, number: int, began: str) -> Expected:
        """What its own message of a round is."""
        shapes = {name: p.shape for name, p in self._all.items() if self._options.trains(name, number)}
        return Expected(job, number, {self.name}, began, shapes)

    def begin(self, job: str, start: bytes) -> tuple[dict[str, Tensor], int]:
        """The factors that begin a round, and its number; nothing is changed. Raises PlanMismatch for bytes that begin
        none of this job, whoever sent them."""
        try:
            began, about = tensors.loads(start)
        except ValueError as error:
            raise PlanMismatch("these bytes are no factors") from error
        number = about.get("round")
        if about.get("job") != job or type(number) is not int or not 0 <= number < self._options.rounds:
            raise PlanMismatch("these factors begin no round of this job")
        kinds = {name: (p.shape, p.dtype) for name, p in self._all.items()}
        if {name: (value.shape, value.dtype) for name, value in began.items()} != kinds:
            raise PlanMismatch("the factors are not those that this job trains")
        if not all(value.isfinite().all() for value in began.values()):
            raise PlanMismatch("the factors have numbers that are not finite")
        return began, number

    def round(
        self,
        job: str,
        start: bytes,
        *,
        authorise: Callable[[int], int],
        save: Callable[[bytes], None],
        streams: Streams,
        checkpoint: bytes | None = None,
    ) -> Message | Literal["used_up", "stopped"]:
        """The message of the round that `start` begins, or how it ended without one.

        authorise(n), save(data): as in `dpcore.run.run`, for steps of this round. checkpoint: what an earlier attempt
        at this round saved; at its end, the message is the same to the bit. streams: the silo's own, never another's.
        Raises PlanMismatch for factors of another model, and for a checkpoint of another round or program.
        """
        began, number = self.begin(job, start)
        put(self._model, began)
        first = number * self._options.steps_each
        until = first + self._options.steps_each
        try:
            self._choose(number)
            with explicit_masks():
                estimator = self._estimators[number % len(self._estimators)]
                now = PhaseRun(self._program, 0, self._setting, estimator, touched={}, before=0, step=first)
                if checkpoint is not None:
                    self._restore(now, checkpoint, first, until)
                ended = now.go_on(authorise, save, self._should_stop, streams, nothing, until=until)
            if ended != "finished":
                return ended
            delta = {n: (p.detach() - began[n].to(p)).float() for n, p in trainable(self._model).items()}
        finally:
            self._choose(None)
        return Message(job, number, self.name, sha256(start), delta)

    def _restore(self, now: PhaseRun, checkpoint: bytes, first: int, until: int) -> None:
        saved = checkpoints.loads(checkpoint)
        checkpoints.require_same(saved, self._program)
        if not first <= saved.step <= until:
            raise PlanMismatch("the checkpoint is of another round")
        now.restore(saved, lambda kept: None)
