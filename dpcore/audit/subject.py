"""What is audited: a method on a kind of task with a unit and a way of clipping, at a price. It becomes a program and a
model the way a job does, from the method's own terms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dpcore.audit import gaussian
from dpcore.audit.units import LABELS
from dpcore.methods import Trainer, get_trainer
from dpcore.models import build_model, load_tokenizer, with_padding
from dpcore.run import Begin
from dpcore.tasks import make_task
from dpcore.terms import accounting
from dpcore.terms.estimators import Histogram, ZerothOrder
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import get_method
from dpcore.terms.program import Clipping, Phase, Program, Unit, of_users, parts, scaled
from dpcore.terms.speed import Speed
from dpcore.terms.tasks import TaskKind, get_kind

CLIP_NORM = 1e-3
"""Far below the norm of any canary's gradient, so that each canary pulls as hard as a unit may."""
DIRECTIONS = 96
"""Of a zeroth-order step: as many numbers as it releases."""
TOGETHER, TOGETHER_OF_NUMBERS = 120, 24
"""Canaries in one run, at most: what others add is noise to a canary, the more so where few numbers are released, along
directions that only the run knows."""
TOKENS, TOKENS_OF_NUMBERS = 512, 128
"""In a micro-batch: a speed, which cannot change a mechanism. Texts are short here, and where gradients are not taken
micro-batches are filled up."""
_MOVE = 1e-4
"""How far the noise moves each weight in a step, about: enough for float32, and too little to teach."""
MAX_LENGTH = 32


@dataclass(frozen=True)
class Subject:
    """steps: of each phase. sample_rate: of the draws; 1, where every unit is in every step, is the mechanism at its
    barest, and draws have an audit of their own."""

    method: str = "lora"
    task: TaskKind = "classification"
    unit: Unit = "record"
    clipping: Clipping | None = None
    epsilon: float = 4.0
    delta: float = 1e-5
    steps: int = 2
    sample_rate: float = 1.0

    @property
    def _of_numbers(self) -> bool:
        return self.method == "zo"

    @property
    def together(self) -> int:
        """Canaries in one run, at most."""
        return TOGETHER_OF_NUMBERS if self._of_numbers else TOGETHER

    @property
    def speed(self) -> Speed:
        """Of its runs."""
        return Speed(tokens=TOKENS_OF_NUMBERS if self._of_numbers else TOKENS)

    @property
    def name(self) -> str:
        """As a line of a table has it."""
        return "/".join([self.method, self.task, self.unit, *([self.clipping] if self.clipping else [])])


@dataclass(frozen=True)
class ReadySubject:
    """model: as the method attached it. noise_multiplier and the others of a phase are the program's. claim: epsilon at
    the subject's delta, by what is exact for this program: never more than was asked."""

    subject: Subject
    model: nn.Module
    task: Any
    program: Program
    trainer: Trainer
    claim: float

    @property
    def begin(self) -> Begin:
        """What the method does at a phase's start."""
        begin: Begin = partial(self.trainer.begin, task=self.subject.task)
        return begin


def prepare(
    subject: Subject, folder: Path, units: int, *, labels: Sequence[str] = LABELS, as_job: bool = False
) -> ReadySubject:
    """The subject on the model in a folder and a file of so many declared units. as_job: with what jobs do with noised
    sums, where an audit looks at the end alone. Raises ValueError where method, task, unit and clipping do not go
    together."""
    program = program_of(subject, folder, units, as_job=as_job)
    labels = labels if get_kind(subject.task).labelled else ()
    base = build_model(subject.task, folder, labels, seed=program.seed)
    tokenizer = with_padding(load_tokenizer(folder), base)
    task = make_task(subject.task, tokenizer, labels=labels, max_length=program.max_length)
    trainer = get_trainer(subject.method)
    model = trainer.attach(base, program.options, task=subject.task, seed=program.seed)
    return ReadySubject(subject, model, task, program, trainer, claim(program, subject.delta))


def program_of(subject: Subject, folder: Path, units: int, *, as_job: bool = False) -> Program:
    """The method's own phases with the least noise at the subject's price. What is done with noised sums is plain
    descent, so that an iterate tells them: that is post-processing, and no part of a price."""
    terms, facts = get_method(subject.method), read_facts(folder)
    options = terms.Options()
    terms.check(options, facts, subject.task)
    if subject.task not in facts.tasks:
        raise ValueError(f"no model for {subject.task}")
    fields = terms.Request.model_fields
    batch = max(1, round(subject.sample_rate * units))
    asked: dict[str, Any] = {"batch_size": batch} | ({} if as_job else {"clip_norm": CLIP_NORM})
    if "directions" in fields:
        asked["directions"] = DIRECTIONS
    if subject.clipping is not None:
        asked["clipping"] = subject.clipping
    request = terms.Request.model_validate(asked)
    numbers = terms.resolve(
        request, options, task=subject.task, declared_size=units, epsilon=subject.epsilon, facts=facts
    )
    phases = terms.phases(options, numbers, declared_size=units)
    plain = [_with_steps(phase, subject.steps) if as_job else _plain(phase, subject.steps) for phase in phases]
    if of_users(plain) and subject.unit != "user":
        raise ValueError(f"{subject.method} protects users alone")
    filter = accounting.reference_filter(
        subject.epsilon, subject.delta, plain[0].mechanism.sample_rate, sum(phase.steps for phase in plain)
    )
    noise = accounting.calibrate(subject.epsilon, subject.delta, filter, parts(plain))
    return Program(
        method=subject.method,
        options=options.model_dump(mode="json"),
        unit=subject.unit,
        max_length=min(MAX_LENGTH, facts.max_positions),
        phases=tuple(phase if as_job else _moving(phase) for phase in scaled(plain, noise)),
    )


def _with_steps(phase: Phase, steps: int) -> Phase:
    """One look at the whole file stays one."""
    return phase.model_copy(update={"steps": 1 if isinstance(phase.estimator, Histogram) else steps})


def _plain(phase: Phase, steps: int) -> Phase:
    """With so many steps of descent without momentum."""
    changes = {"optimizer": "sgd", "betas": (0.0, 0.999), "weight_decay": 0.0, "weight_averaging": 0.0}
    return Phase.model_validate(dict(_with_steps(phase, steps)) | changes)


def _moving(phase: Phase) -> Phase:
    """With a learning rate at which the noise moves each weight by about _MOVE."""
    deviation = phase.mechanism.noise_multiplier * phase.clip_norm / phase.expected_batch
    if isinstance(phase.estimator, ZerothOrder):
        deviation /= math.sqrt(phase.estimator.directions)
    return phase.model_copy(update={"learning_rate": _MOVE / deviation})


def claim(program: Program, delta: float) -> float:
    """Epsilon of a program's run alone at this delta: exact where every step is on the whole file, and by the privacy
    loss distribution elsewhere."""
    if all(phase.mechanism.sample_rate == 1 for phase in program.phases):
        mu = math.sqrt(sum(phase.steps / phase.mechanism.noise_multiplier**2 for phase in program.phases))
        return gaussian.epsilon_of(mu, delta)
    return accounting.pld_epsilon(parts(program.phases), delta)
