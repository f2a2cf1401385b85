"""A request for a job with everything resolved: its files, its plan, and what it would take of its budget."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from domain.access.grants import HeldGrant, Viewer, used_by
from domain.files import files
from domain.jobs.allowed import require_allowed
from domain.jobs.measuring import promised
from domain.jobs.planning import (
    Dataset,
    Draft,
    at_main_order,
    draft,
    fits,
    guarantee,
    largest_epsilon,
    largest_share,
    prices,
)
from domain.jobs.synthetic import as_kept, require_samplable
from domain.jobs.teachers import require_teacher, with_student
from domain.jobs.twins import finished_twin
from domain.kit.purposes import PRIVATE, PUBLIC
from domain.kit.refusals import Conflict, Invalid, NotFound
from domain.kit.tables import file
from domain.models.allow_list import BaseModelFacts, Models
from domain.models.profiles import Measurements, Profile, known, of_pair, seconds
from dpcore.terms import accounting
from dpcore.terms.audits import require_auditable
from dpcore.terms.label_words import are_words
from dpcore.terms.methods import get_method
from dpcore.terms.synthetic import Synthetic
from dpcore.terms.tasks import TaskKind
from ledger.budgets import Balance, balance


@dataclass(frozen=True)
class Wanted:
    """What a caller asks for; None and missing values are left to the service."""

    model: str
    training_file: str
    validation_file: str | None
    method: str
    options: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]
    epsilon: float | None
    delta: float | None
    seed: int | None
    suffix: str | None
    metadata: Mapping[str, str]
    intended_use: str | None = None
    """What the result is for, in the words of whoever asks."""
    share: float | None = None
    """Of the budget's cap at its main order, in place of an epsilon."""
    measure: float | None = None
    """The part of the budget, within the job's, at which its result is measured on held-out units; None: it is not."""
    epochs: float | None = None
    """Passes over the file on average, in place of steps: the expected batch and the declared size say how many."""
    queue_days: int | None = None
    """Days in which a worker must begin, at most the budget's; None: the budget's."""
    allow_duplicate: bool = False
    """Pay again for a job that has succeeded already."""
    synthetic: Synthetic | None = None
    audit: bool = False
    """Text that is to be sampled from what the job releases."""

    @property
    def price(self) -> Literal["epsilon", "share"] | None:
        """What was named."""
        return "share" if self.share is not None else "epsilon" if self.epsilon is not None else None


@dataclass(frozen=True)
class Planned:
    """A job with every number resolved, and the budget as it was when it was planned."""

    wanted: Wanted
    sources: tuple[sa.Row[Any], ...]
    """The files that the job would open: whole rows of `file`."""
    draft: Draft
    budget: Balance
    grant: HeldGrant | None
    approval_above: float | None
    """The lower threshold of the budget's and the grant's; a job above it waits for a steward."""
    finished_twin: str | None
    profiles: tuple[Profile, ...] = ()
    """What workers measured of this model and of what each phase trains; none before all were."""
    room: int | None = None
    """Bytes of the largest device that measured this model; None before one has said."""
    model_revision: str | None = None
    """sha256 of the base model's weights, which the worker holds the job to."""
    seconds: float | None = None
    """At most how long training takes, by what was measured."""

    @property
    def memory(self) -> int:
        """Bytes that training needs, by formula or, where that was more, as measured."""
        return self.draft.rows + max(self.draft.memory, *(profile.peak_bytes for profile in self.profiles), 0)

    @property
    def fits_worker(self) -> bool | None:
        """Whether some worker's device has as much memory as the job needs; None before one has said."""
        return None if self.room is None else self.memory <= self.room

    @property
    def accounts(self) -> list[Balance]:
        """What must have room: the budget, and the grant's sub-limit where there is one."""
        sub = None if self.grant is None else self.grant.account
        return [self.budget] if sub is None else [self.budget, sub]

    @property
    def frozen(self) -> bool:
        """Whether nothing fits at present, whatever is left."""
        return self.budget.frozen_reason is not None

    @property
    def fits(self) -> bool:
        return not self.frozen and all(fits(self.draft, a) for a in self.accounts)

    @property
    def largest_epsilon(self) -> float:
        return 0.0 if self.frozen else min(largest_epsilon(self.draft, a) for a in self.accounts)

    @property
    def largest_share(self) -> float:
        left = None if self.grant is None else self.grant.share_left(self.budget)
        return 0.0 if self.frozen else largest_share(self.draft, self.budget, 1.0 if left is None else left)

    @property
    def jobs_that_fit(self) -> int:
        """How many jobs like this one still fit, this one among them."""
        if self.frozen:
            return 0
        return min(accounting.how_many_fit(a.cap, a.used, self.draft.cost) for a in self.accounts)

    @property
    def needs_approval(self) -> bool:
        """Whether a steward must agree; the database decides the same in its own integers."""
        if self.approval_above is None:
            return False
        cap = accounting.caps(self.approval_above, self.budget.delta, self.budget.filter)
        return not accounting.fits(cap, self.budget.filter.nothing, self.draft.cost)

    @property
    def needs_intended_use(self) -> bool:
        """Whether the budget wants to know what the job is for, and it does not say."""
        return self.budget.require_intended_use and self.wanted.intended_use is None

    @property
    def price_now(self) -> float:
        """What the budget's epsilon so far would grow by: less than the job's own epsilon, because noise composes."""
        after = tuple(u + c for u, c in zip(self.budget.used, self.draft.cost, strict=True))
        return max(0.0, self.budget.epsilon_of(after) - self.budget.epsilon_of(self.budget.used))

    def privacy(self) -> dict[str, Any]:
        """What is promised; budget_left is the epsilon that the budget's total stays below its limit.

        Of several phases: the least noise and the largest rate of those that train, all steps."""
        program, budget = self.draft.program, self.budget
        mechanisms = [phase.mechanism for phase in program.training]
        after = tuple(u + c for u, c in zip(budget.used, self.draft.cost, strict=True))
        return {
            "budget": budget.id,
            "unit": budget.unit,
            "epsilon": self.draft.epsilon,
            "share": self.draft.share,
            "main_order": at_main_order(self.draft, budget),
            "asked": self.wanted.price,
            "asked_for": self.wanted.share if self.wanted.share is not None else self.wanted.epsilon,
            "delta": budget.delta,
            "noise_multiplier": min(m.noise_multiplier for m in mechanisms),
            "sample_rate": max(m.sample_rate for m in mechanisms),
            "steps_planned": program.steps,
            "phases": prices(program, budget),
            "measure": promised(program, budget),
            "budget_left_before": budget_left(budget, budget.used),
            "budget_left_after": budget_left(budget, after),
            "share_left_before": budget.share_left,
            "share_left_after": accounting.share_left(budget.cap, after, budget.filter),
            "guarantee": guarantee(program, budget, self.draft.epsilon),
        }


def budget_left(budget: Balance, used: tuple[int, ...]) -> float:
    """For display: the limit less what `used` alone would take of the empty budget."""
    return max(0.0, budget.epsilon - budget.epsilon_of(used))


def plan_job(connection: sa.Connection, viewer: Viewer, models: Models, wanted: Wanted) -> Planned:
    """Resolve a request; the files it names cannot be deleted until the caller's transaction ends.

    Raises Invalid or NotFound, naming the field.
    """
    model, student = with_student(models, _model(models, wanted.model), wanted.method, wanted.options)
    training = usable_private(connection, viewer, wanted.training_file, "training_file")
    sources = [training]
    if wanted.validation_file is not None:
        validation = _usable(connection, viewer, wanted.validation_file, "validation_file", PUBLIC)
        if validation.task != training.task:
            raise Invalid(
                f"the evaluation set is for the task {validation.task}, the training file for {training.task}",
                code="tasks_differ",
                param="validation_file",
            )
        if not set(validation.labels or ()) <= set(training.labels or ()):
            raise Invalid(
                "the evaluation set has labels that the training file has not",
                code="labels_differ",
                param="validation_file",
            )
        sources.append(validation)
    budget = balance(connection, training.budget_id)
    grant = used_by(connection, viewer, budget)
    epsilon, share = _price(wanted, grant)
    made = draft(
        method=wanted.method,
        options=wanted.options,
        hyperparameters=wanted.hyperparameters,
        epochs=wanted.epochs,
        epsilon=epsilon,
        share=share,
        delta=wanted.delta,
        measure=wanted.measure,
        seed=secrets.randbelow(2**31) if wanted.seed is None else wanted.seed,
        model=model,
        dataset=Dataset(
            training.task,
            training.declared_size,
            len(training.labels or ()),
            training.max_length,
            are_words(training.task, training.labels or ()),
        ),
        budget=budget,
    )
    require_allowed(grant, model.name, made.program)
    if wanted.synthetic is not None:
        federated = "silos" in made.program.options
        require_samplable(wanted.synthetic, task=training.task, facts=model.facts, federated=federated)
    if wanted.audit:
        _require_auditable(made.program.method, training.task)
    teacher = require_teacher(connection, viewer, models, made, model, training, wanted.method)
    if teacher is not None:  # the method's own formula takes the base model for the teacher
        made = replace(made, memory=made.memory + 4 * max(0, teacher.facts.parameters - model.facts.parameters))
    found = known(connection, model)
    _require_no_refusal(found, made, training.task)
    twin = finished_twin(
        connection,
        viewer,
        model=wanted.model,
        model_revision=model.revision,
        training_file=training.id,
        method=made.method,
        epsilon=made.epsilon,
        synthetic=None if wanted.synthetic is None else as_kept(wanted.synthetic),
        measured=made.program.measurement is not None,
        audited=wanted.audit,
    )
    above = _approval_above(budget, grant)
    measured = of_pair(made.program, training.task, found, None if student is None else known(connection, student))
    lasts = seconds(made.program, measured, model.facts) if measured else None
    return Planned(
        wanted, tuple(sources), made, budget, grant, above, twin, measured, found.room, model.revision, lasts
    )


def _model(models: Models, name: str) -> BaseModelFacts:
    if name in models.unusable:
        because = models.unusable[name].because
        raise Conflict(f"the model {name} cannot be used now: {because}", code="model_unavailable", param="model")
    if name not in models.usable:
        raise Invalid(f"unknown model; there are: {', '.join(models.usable)}", code="unknown_model", param="model")
    return models.usable[name]


def _require_no_refusal(found: Measurements, made: Draft, task: TaskKind) -> None:
    """What workers tried is each method with its default options: others may still do."""
    method = made.program.method
    refusal = found.refusal(method, task)
    if refusal is None or made.program.options != get_method(method).Options().model_dump(mode="json"):
        return
    raise Invalid(
        f"a worker tried the method {method} on this model, on made-up text, and it cannot be trained so: {refusal}",
        code="unsupported_method",
        param="method.type",
    )


def _require_auditable(method: str, task: TaskKind) -> None:
    try:
        require_auditable(method, task)
    except ValueError as error:
        raise Invalid(f"this job cannot be audited: {error}", code="cannot_audit", param="audit") from error


def _price(wanted: Wanted, grant: HeldGrant | None) -> tuple[float | None, float | None]:
    """The epsilon or the share that a job is made for. Named by neither: all of a sub-limit that nothing has touched;
    without one the plan takes its default from the budget."""
    if wanted.price is not None or grant is None or grant.account is None or any(grant.account.used):
        return wanted.epsilon, wanted.share
    return (grant.account.epsilon, None) if grant.share is None else (None, float(grant.share))


def _approval_above(budget: Balance, grant: HeldGrant | None) -> float | None:
    both = (budget.approval_above, None if grant is None else grant.approval_above)
    return min((float(above) for above in both if above is not None), default=None)


def usable_private(connection: sa.Connection, viewer: Viewer, file_id: str, param: str) -> sa.Row[Any]:
    """A private file to train on, which cannot be deleted until the caller's transaction ends. Raises Invalid or
    NotFound, naming the field."""
    return _usable(connection, viewer, file_id, param, PRIVATE)


def _usable(connection: sa.Connection, viewer: Viewer, file_id: str, param: str, purpose: str) -> sa.Row[Any]:
    row = connection.execute(
        files.of_tenant(viewer).where(file.c.id == file_id).with_for_update(read=True, of=file)
    ).one_or_none()
    if row is None:
        raise NotFound("file", param)
    if row.purpose != purpose:
        needed = "a private file (purpose fine-tune)" if purpose == PRIVATE else "a public file (purpose evals)"
        raise Invalid(
            f"{param} must be {needed}; this one has purpose {row.purpose}", code="wrong_purpose", param=param
        )
    if row.status != "processed":
        raise Invalid(f"{param} has status {row.status}; it cannot be used", code="file_not_processed", param=param)
    return row
