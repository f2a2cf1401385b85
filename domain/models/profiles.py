"""What workers found out about training the base models on synthetic input, and what that says about a job."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import distinct_on

from domain.kit.tables import model_profile, model_trial
from domain.models.allow_list import BaseModelFacts
from dpcore.terms.estimators import Local
from dpcore.terms.facts import ModelFacts
from dpcore.terms.layers import Shrinking
from dpcore.terms.methods import get_method
from dpcore.terms.program import Program
from dpcore.terms.tasks import TaskKind, get_kind


@dataclass(frozen=True)
class Measured:
    """One measurement: no row of anybody had a part in it."""

    method: str
    task: TaskKind
    """What `measured_as` makes of a task."""
    device: str
    """The processor or GPU by name."""
    max_length: int
    """Tokens of each synthetic record."""
    tokens_per_second: float
    """Of whole steps: gradients or the losses along a direction, clipping, noise and the optimiser."""
    peak_bytes: int
    """Of the device's memory; on a processor, of the process."""
    device_bytes: int | None
    """That the device has in all; None for a measurement of an earlier version."""
    options: dict[str, Any] = field(default_factory=dict, kw_only=True)
    """Of the method, where they were not its defaults."""


@dataclass(frozen=True)
class Profile(Measured):
    measured_at: datetime


@dataclass(frozen=True)
class Trial:
    """Whether a method with its default options trains a model, tried on made-up tokens."""

    method: str
    task: TaskKind
    """What `measured_as` makes of a task."""
    refusal: str | None
    """Why it does not, for everybody; None where it does."""
    tried_at: datetime


@dataclass(frozen=True)
class Measurements:
    """The newest of what was found out about one model; a model with other weights has none of it."""

    facts: ModelFacts
    profiles: list[Profile]
    """One for each method, task, device and set of options."""
    trials: list[Trial]
    """One for each method and task."""

    def expected(self, method: str, task: TaskKind, options: Mapping[str, Any] | None = None) -> Profile | None:
        """What a job must reckon with: the slowest of the devices that measured the least that is as large as what
        these options train, or the largest there is; None before any was measured. None of options: the defaults. A
        measurement with options that the method has not, as of another version, says nothing."""
        spec = get_method(method)

        def size(options: Mapping[str, Any]) -> int | None:
            try:
                return spec.trainable(spec.Options.model_validate(options), self.facts, labels=2, task=task)
            except ValidationError:
                return None

        of_method = [(size(p.options), p) for p in self.profiles if (p.method, p.task) == (method, measured_as(task))]
        fitting = [(found, p) for found, p in of_method if found is not None]
        wanted = size(options or {})
        if not fitting or wanted is None:
            return None
        nearest = min((found for found, _ in fitting if found >= wanted), default=max(found for found, _ in fitting))
        return min((p for found, p in fitting if found == nearest), key=lambda p: p.tokens_per_second)

    def of_program(self, program: Program, task: TaskKind) -> tuple[Profile, ...]:
        """What each phase must reckon with; nothing before all of them were measured."""
        found = [
            self.expected(phase.trains, task, program.options if phase.trains == program.method else None)
            for phase in program.phases
        ]
        return tuple(profile for profile in found if profile is not None) if None not in found else ()

    @property
    def room(self) -> int | None:
        """Bytes of the largest device that measured this model; None before one has said."""
        return max((p.device_bytes for p in self.profiles if p.device_bytes is not None), default=None)

    def refusal(self, method: str, task: TaskKind) -> str | None:
        """Why the method does not train the model with its default options; None where it does or was not tried."""
        return next((t.refusal for t in self.trials if (t.method, t.task) == (method, measured_as(task))), None)

    def methods(self, model: BaseModelFacts, task: TaskKind) -> list[str]:
        """Methods that can train the model on this task: by what its files say, less those that failed when tried."""
        return [method for method in model.methods(task) if self.refusal(method, task) is None]


def of_pair(program: Program, task: TaskKind, found: Measurements, student: Measurements | None) -> tuple[Profile, ...]:
    """What each phase must reckon with; nothing before all of them were measured. student: of the model that the last
    phase trains, where it is another; the job's own then answers beside it, in no more than a step of its own takes."""
    profiles = found.of_program(program, task)
    if student is None or not profiles:
        return profiles
    alone = student.expected(program.training[-1].trains, task)
    if alone is None:
        return ()
    beside = profiles[0]
    both = replace(
        alone,
        tokens_per_second=1 / (1 / alone.tokens_per_second + 1 / beside.tokens_per_second),
        peak_bytes=max(alone.peak_bytes, beside.peak_bytes),
    )
    measuring = len(program.phases) - len(program.training)
    return (*profiles[: len(program.training) - 1], both, *[alone] * measuring)


def measured_as(task: TaskKind) -> TaskKind:
    """The task that stands for this one: what is computed does not differ."""
    return get_kind(task).measured_as


def record(connection: sa.Connection, model: BaseModelFacts, measured: Measured) -> None:
    """Keep a measurement beside older ones."""
    connection.execute(
        model_profile.insert().values(model=model.name, revision=model.revision, **asdict(measured)).inline()
    )


def record_trial(
    connection: sa.Connection, model: BaseModelFacts, method: str, task: TaskKind, refusal: str | None, versions: str
) -> None:
    """Keep a trial, which counts from now on. versions: of the libraries that were at work."""
    values = {"method": method, "task": measured_as(task), "refusal": refusal, "versions": versions}
    connection.execute(model_trial.insert().values(model=model.name, revision=model.revision, **values).inline())


def refused_by(connection: sa.Connection, model: BaseModelFacts, versions: str) -> set[tuple[str, TaskKind]]:
    """Methods and tasks that the newest trial refused with these very versions: trying again would find the same."""
    table = model_trial.c
    rows = connection.execute(
        sa.select(table.method, table.task, table.refusal, table.versions)
        .ext(distinct_on(table.method, table.task))
        .where(table.revision == model.revision)
        .order_by(table.method, table.task, table.tried_at.desc(), table.id.desc())
    )
    return {(row.method, row.task) for row in rows if row.refusal is not None and row.versions == versions}


def known(connection: sa.Connection, model: BaseModelFacts) -> Measurements:
    """All that was found out about a model, in one statement."""
    table = model_profile.c
    apart = (table.method, table.task, table.device, table.options)
    measured = (
        sa.select(
            *(*apart, table.max_length, table.tokens_per_second, table.peak_bytes, table.device_bytes),
            table.measured_at.label("at"),
        )
        .ext(distinct_on(*apart))
        .where(table.revision == model.revision)
        .order_by(*apart, table.measured_at.desc(), table.id.desc())
        .subquery()
    )
    trial = model_trial.c
    tried = (
        sa.select(trial.method, trial.task, trial.refusal, trial.tried_at.label("at"))
        .ext(distinct_on(trial.method, trial.task))
        .where(trial.revision == model.revision)
        .order_by(trial.method, trial.task, trial.tried_at.desc(), trial.id.desc())
        .subquery()
    )
    rows = connection.execute(
        sa.union_all(
            sa.select(*measured.c, sa.null().label("refusal"), sa.false().label("trial")),
            sa.select(*(tried.c.get(c.name, sa.null()) for c in measured.c), tried.c.refusal, sa.true()),
        )
    ).all()
    return Measurements(
        model.facts,
        [
            Profile(
                *(r.method, r.task, r.device, r.max_length, r.tokens_per_second, r.peak_bytes, r.device_bytes, r.at),
                options=r.options,
            )
            for r in rows
            if not r.trial
        ],
        [Trial(r.method, r.task, r.refusal, r.at) for r in rows if r.trial],
    )


def seconds(program: Program, profiles: Sequence[Profile], facts: ModelFacts, authorised: Sequence[int] = ()) -> float:
    """Seconds of training if every record had the most tokens, of the steps that are left after those authorised of
    each phase; from public values alone, start and waiting apart. facts: of the model that was measured."""
    total = 0.0
    done = authorised or [0] * len(program.phases)
    for phase, profile, steps in zip(program.phases, profiles, done, strict=True):
        each = phase.estimator.records_each if isinstance(phase.estimator, Local) else 1
        each *= 1 if phase.measures else program.views
        tokens = phase.expected_batch * each * program.max_length * phase.estimator.passes
        left = phase.steps - steps if phase.measures else _whole_steps(program, facts, phase.steps, steps)
        total += left * tokens / profile.tokens_per_second
    return total


def _whole_steps(program: Program, facts: ModelFacts, steps: int, done: int) -> float:
    """The steps that are left, of a model that has all its layers: one that has lost some counts by the weights that it
    has, embeddings too, so that it is rather too much."""
    options = get_method(program.method).Options.model_validate(program.options)
    left = options.layers_from(facts.layers, steps) if isinstance(options, Shrinking) else {0: facts.layers}
    total = 0.0
    for start, end in pairwise((*left, steps)):
        now = facts.model_copy(update={"layers": left[start]})
        total += max(0, end - max(start, done)) * now.parameters / facts.parameters
    return total
