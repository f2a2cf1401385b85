"""Jobs: planned from public values, submitted with their reservation, read within one tenant, cancelled."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from domain.access.grants import Grant, Viewer, sees_job, used_by
from domain.files import files
from domain.files.binding import require_bound
from domain.jobs import approvals, pauses
from domain.jobs.approvals import show_waiting
from domain.jobs.events import append_event
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
    rounded_up,
)
from domain.jobs.releases import rounded_now
from domain.jobs.twins import already_done, finished_twin
from domain.kit.ids import new_id
from domain.kit.purposes import PRIVATE, PUBLIC, RESULT
from domain.kit.refusals import Conflict, Invalid, NotFound, OverBudget
from domain.kit.statuses import CANCELLING, HELD, OPEN
from domain.kit.tables import file, job, job_file, release
from domain.models.allow_list import BaseModelFacts, Models
from domain.models.profiles import Known, Profile, known, seconds
from domain.storage.blobs import Store
from dpcore.terms import accounting
from dpcore.terms.methods import get_method
from dpcore.terms.tasks import TaskKind
from ledger import reserve, work
from ledger.budgets import Balance, balance
from ledger.errors import AlreadySettled, BudgetExceeded, GrantExceeded, NotGranted, StaleFence
from ledger.tables import entry, phase, reservation

_CANCELLED = "Cancelled. Steps that were authorised stay charged; the rest went back to the budget."


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
    share: float | None = None
    """Of the budget's cap at its main order, in place of an epsilon."""
    queue_days: int | None = None
    """Days in which a worker must begin, at most the budget's; None: the budget's."""
    allow_duplicate: bool = False
    """Pay again for a job that has succeeded already."""

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
    grant: Grant | None
    approval_above: float | None
    """The lower threshold of the budget's and the grant's; a job above it waits for a steward."""
    finished_twin: str | None
    profiles: tuple[Profile, ...] = ()
    """What workers measured of this model and of what each phase trains; none before all were."""
    model_revision: str | None = None
    """sha256 of the base model's weights, which the worker holds the job to."""

    @property
    def seconds(self) -> float | None:
        """At most how long training takes, by what was measured."""
        return seconds(self.draft.program, self.profiles) if self.profiles else None

    @property
    def memory(self) -> int:
        """Bytes that training needs, by formula or, where that was more, as measured."""
        return max(self.draft.memory, *(profile.peak_bytes for profile in self.profiles), 0)

    @property
    def accounts(self) -> list[Balance]:
        """What must have room: the budget, and the grant's sub-limit where there is one."""
        sub = None if self.grant is None else self.grant.account
        return [self.budget] if sub is None else [self.budget, sub]

    @property
    def fits(self) -> bool:
        return self.budget.frozen_reason is None and all(fits(self.draft, a) for a in self.accounts)

    @property
    def largest_epsilon(self) -> float:
        return min(largest_epsilon(self.draft, a) for a in self.accounts)

    @property
    def largest_share(self) -> float:
        return largest_share(self.draft, self.budget, None if self.grant is None else self.grant.account)

    @property
    def jobs_that_fit(self) -> int:
        """How many jobs like this one still fit, this one among them."""
        return min(accounting.how_many_fit(a.cap, a.used, self.draft.cost) for a in self.accounts)

    @property
    def needs_approval(self) -> bool:
        """Whether a steward must agree; the database decides the same in its own integers."""
        if self.approval_above is None:
            return False
        cap = accounting.caps(self.approval_above, self.budget.delta, self.budget.filter)
        return not accounting.fits(cap, self.budget.filter.nothing, self.draft.cost)

    @property
    def price_now(self) -> float:
        """What the budget's epsilon so far would grow by: less than the job's own epsilon, because noise composes."""
        after = tuple(u + c for u, c in zip(self.budget.used, self.draft.cost, strict=True))
        return max(0.0, self.budget.epsilon_of(after) - self.budget.epsilon_of(self.budget.used))

    def privacy(self) -> dict[str, Any]:
        """What is promised; budget_left is the epsilon that the budget's total stays below its limit.

        Of several phases: the least noise, the largest rate, all steps."""
        program, budget = self.draft.program, self.budget
        mechanisms = [phase.mechanism for phase in program.phases]
        after = tuple(u + c for u, c in zip(budget.used, self.draft.cost, strict=True))
        return {
            "budget": budget.id,
            "unit": budget.unit,
            "epsilon": self.draft.epsilon,
            "share": self.draft.share,
            "main_order": at_main_order(self.draft, budget),
            "asked": self.wanted.price,
            "delta": budget.delta,
            "noise_multiplier": min(m.noise_multiplier for m in mechanisms),
            "sample_rate": max(m.sample_rate for m in mechanisms),
            "steps_planned": program.steps,
            "phases": prices(program, budget),
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
    model = _model(models, wanted.model)
    training = _usable(connection, viewer, wanted.training_file, "training_file", PRIVATE)
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
    made = draft(
        method=wanted.method,
        options=wanted.options,
        hyperparameters=wanted.hyperparameters,
        epsilon=_default_epsilon(grant) if wanted.epsilon is None else wanted.epsilon,
        share=wanted.share,
        delta=wanted.delta,
        seed=secrets.randbelow(2**31) if wanted.seed is None else wanted.seed,
        model=model,
        dataset=Dataset(training.task, training.declared_size, len(training.labels or ()), training.max_length),
        budget=budget,
    )
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
    )
    above = _approval_above(budget, grant)
    measured = found.of_program(made.program, training.task)
    return Planned(wanted, tuple(sources), made, budget, grant, above, twin, measured, model.revision)


def _model(models: Models, name: str) -> BaseModelFacts:
    if name in models.unusable:
        because = models.unusable[name].because
        raise Conflict(f"the model {name} cannot be used now: {because}", code="model_unavailable", param="model")
    if name not in models.usable:
        raise Invalid(f"unknown model; there are: {', '.join(models.usable)}", code="unknown_model", param="model")
    return models.usable[name]


def _require_no_refusal(found: Known, made: Draft, task: TaskKind) -> None:
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


def _default_epsilon(grant: Grant | None) -> float | None:
    """All of a sub-limit that nothing has touched; without one the plan takes its default from the budget."""
    if grant is None or grant.account is None or any(grant.account.used):
        return None
    return grant.account.epsilon


def _approval_above(budget: Balance, grant: Grant | None) -> float | None:
    both = (budget.approval_above, None if grant is None else grant.approval_above)
    return min((float(above) for above in both if above is not None), default=None)


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


def submit(
    connection: sa.Connection, planned: Planned, store: Store, *, job_id: str, viewer: Viewer, check_first: bool
) -> None:
    """Insert the job, its reservation and the ledger entry; the caller commits, then sends a hint.

    Raises Conflict when the same job has succeeded already and nobody asked to pay again, or when a file is not tied to
    its rows, of which none is read; OverBudget, by the service's own check or, with `check_first` false or after losing
    a race, because the database refused (its error is then the cause); NotFound when the grant was revoked meanwhile;
    ledger.errors.BudgetFrozen.
    """
    if planned.finished_twin is not None and not planned.wanted.allow_duplicate:
        raise already_done(planned.finished_twin)
    if check_first:
        for account in planned.accounts:
            if not fits(planned.draft, account):
                raise _over_budget(planned, account, "service")
    units = {planned.budget.id: (planned.budget.unit, planned.budget.max_records_per_user)}
    require_bound(connection, store, planned.sources, units)
    try:
        with connection.begin_nested():
            _insert(connection, planned, job_id, viewer)
    except NotGranted as error:
        raise NotFound("file", "training_file") from error
    except (BudgetExceeded, GrantExceeded) as error:
        budget = balance(connection, planned.budget.id)
        now = replace(planned, budget=budget, grant=used_by(connection, viewer, budget))
        raise _over_budget(now, now.accounts[-1 if isinstance(error, GrantExceeded) else 0], "database") from error


def _insert(connection: sa.Connection, planned: Planned, job_id: str, viewer: Viewer) -> None:
    wanted, program, privacy = planned.wanted, planned.draft.program, planned.privacy()
    connection.execute(
        job.insert().values(
            id=job_id,
            tenant_id=viewer.tenant_id,
            created_by=viewer.key_id,
            model=wanted.model,
            model_revision=planned.model_revision,
            validation_file=wanted.validation_file,
            method=planned.draft.method,
            plan=program.model_dump(mode="json"),
            privacy=privacy,
            seed=program.seed,
            suffix=wanted.suffix,
            metadata=dict(wanted.metadata),
        )
    )
    connection.execute(
        job_file.insert().values(job_id=job_id, file_id=wanted.training_file, budget_id=planned.budget.id)
    )
    charge = reserve.Charge(
        reservation_id=new_id("reservation"),
        file_id=wanted.training_file,
        budget_id=planned.budget.id,
        phases=[
            reserve.Priced(p.mechanism.sample_rate, p.mechanism.noise_multiplier, p.steps, p.mechanism.indivisible)
            for p in program.phases
        ],
    )
    receipts = reserve.reserve(connection, job_id, [charge], queue_days=wanted.queue_days)
    append_event(
        connection,
        job_id,
        "job.queued",
        f"Queued. {rounded_up(planned.draft.epsilon):g} of epsilon is reserved; what the job does not use goes back.",
        new=True,
    )
    if any(receipt.waits for receipt in receipts):
        show_waiting(connection, job_id)


def _over_budget(planned: Planned, account: Balance, refused_by: str) -> OverBudget:
    """`account`: the budget, or the grant's sub-limit."""
    largest = {"epsilon": planned.largest_epsilon, "share": planned.largest_share}
    what = planned.wanted.price or "epsilon"
    epsilon = f"epsilon {rounded_up(planned.draft.epsilon):g}"
    asked = epsilon if what == "epsilon" else f"a share of {planned.wanted.share:g} ({epsilon})"
    advice = (
        f"the largest {what} at which this job fits is {largest[what]:g}"
        if largest[what] > 0
        else f"no job of this shape fits any more, whatever its {what}"
    )
    of_grant = account is not planned.budget
    limit = "the grant's sub-limit" if of_grant else "the privacy budget"
    which: dict[str, Any] = {"grant": account.id, "grant_left": budget_left(account, account.used)} if of_grant else {}
    return OverBudget(
        f"{limit} of {account.epsilon:g} has no room for {asked} beside what is spent and reserved; {advice}",
        code="grant_limit_exceeded" if of_grant else "privacy_budget_exceeded",
        param=f"privacy.{what}",
        budget=planned.budget.id,
        budget_left=budget_left(planned.budget, planned.budget.used),
        **which,
        largest_epsilon=largest["epsilon"],
        largest_share=largest["share"],
        refused_by=refused_by,
    )


_ahead, _source = job.alias(), file.alias()
_STATEMENTS = 128
"""Viewers whose statement is kept: it takes longer to put together than to run, and some 40 KiB."""


@lru_cache(_STATEMENTS)
def of_tenant(viewer: Viewer) -> sa.Select[Any]:
    """The jobs of a tenant that the viewer may see, with what the ledger and the releases say about each.

    For single jobs: a place in the queue is counted job by job. A page of them: `page_of_tenant`.
    """
    first = sa.tuple_(_ahead.c.created_at, _ahead.c.id) <= sa.tuple_(job.c.created_at, job.c.id)
    place = sa.select(sa.func.count()).where(*_waits(viewer), first).correlate(job).scalar_subquery()
    return _seen_by(viewer).add_columns(sa.case((_in_line(job), place)).label("queue_position"))


@lru_cache(_STATEMENTS)
def page_of_tenant(viewer: Viewer) -> sa.Select[Any]:
    """The same for many jobs: the queue is numbered once, not once for each of them."""
    number = sa.func.row_number().over(order_by=(_ahead.c.created_at, _ahead.c.id)).label("place")
    line = sa.select(_ahead.c.id, number).where(*_waits(viewer)).cte("line").prefix_with("MATERIALIZED")
    # No join: on young statistics it would be done for all jobs before the page is cut.
    place = sa.select(line.c.place).where(line.c.id == job.c.id).scalar_subquery()
    return _seen_by(viewer).add_columns(place.label("queue_position"))


def _seen_by(viewer: Viewer) -> sa.Select[Any]:
    # Correlated by hand: this one lies two levels deep, where SQLAlchemy would read the whole job table instead.
    own = sa.select(sa.func.min(reservation.c.id)).where(reservation.c.job_id == job.c.id).correlate(job)
    first = own.scalar_subquery()
    steps = sa.select(sa.func.array_agg(aggregate_order_by(phase.c.steps_authorised, phase.c.ordinal))).where(
        phase.c.reservation_id == first
    )
    charge = sa.select(
        sa.func.json_build_object(
            "budget", entry.c.budget_id, "seq", entry.c.seq, "hash", sa.func.encode(entry.c.hash, "hex")
        )
    ).where(entry.c.reservation_id == first, entry.c.kind == "reserve")
    training = sa.select(sa.func.min(job_file.c.file_id)).where(job_file.c.job_id == job.c.id)
    task = (
        sa.select(sa.func.min(_source.c.task))
        .join(job_file, job_file.c.file_id == _source.c.id)
        .where(job_file.c.job_id == job.c.id)
    )
    results = (
        sa.select(sa.func.array_agg(aggregate_order_by(release.c.file_id, release.c.kind)))  # the adapter first
        .join(file, file.c.id == release.c.file_id)
        .where(release.c.job_id == job.c.id, file.c.deleted_at.is_(None))
    )
    return sa.select(
        job,
        training.scalar_subquery().label("training_file"),
        task.scalar_subquery().label("task"),
        steps.scalar_subquery().label("steps_by_phase"),
        charge.scalar_subquery().label("receipt"),
        results.scalar_subquery().label("result_files"),
    ).where(job.c.tenant_id == viewer.tenant_id, sees_job(viewer, job.c.id))


def _waits(viewer: Viewer) -> tuple[sa.ColumnElement[bool], ...]:
    """What holds of the jobs in the viewer's line, as `_ahead`."""
    return _ahead.c.tenant_id == viewer.tenant_id, sees_job(viewer, _ahead.c.id), _in_line(_ahead)


def _in_line(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether a job waits for a worker and for nobody else."""
    queued = sa.literal("queued", literal_execute=True)  # in the text of the statement, where an index can be seen
    return sa.and_(table.c.status == queued, sa.func.coalesce(table.c.status_detail, "").not_in(HELD))


def require(connection: sa.Connection, viewer: Viewer, job_id: str) -> sa.Row[Any]:
    """The job, if the viewer may see it. Raises NotFound."""
    row = connection.execute(of_tenant(viewer).where(job.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound("fine-tuning job")
    return row


def cancel(connection: sa.Connection, viewer: Viewer, job_id: str) -> None:
    """Stop a job: at once if nobody works on it, otherwise by asking its worker, who settles what was authorised.

    A job that is cancelled already stays so. Raises NotFound, or Conflict for a job that ended otherwise.
    """
    if require(connection, viewer, job_id).status == "cancelled":
        return
    unfinished = sa.update(job).where(job.c.id == job_id, job.c.status.in_(OPEN))
    try:
        with connection.begin_nested():
            settled = reserve.settle(connection, job_id, "cancelled")
    except StaleFence:  # a worker holds the lease
        work.request_stop(connection, job_id)
        asking = unfinished.where(job.c.status_detail.is_distinct_from(CANCELLING)).values(status_detail=CANCELLING)
        if connection.execute(asking).rowcount:
            append_event(connection, job_id, "job.cancelling", "Cancelling: the worker stops before its next step.")
    except AlreadySettled:  # it ended while we were asked
        pass
    else:
        if settled:
            connection.execute(unfinished.values(status="cancelled", status_detail=None, finished_at=rounded_now()))
            append_event(connection, job_id, "job.cancelled", _CANCELLED)
    now = require(connection, viewer, job_id).status
    if now in ("succeeded", "failed"):
        raise Conflict(f"the job has {now}; there is nothing to cancel", code="job_has_ended")


def pause(connection: sa.Connection, viewer: Viewer, job_id: str) -> None:
    """Hold a job until it is resumed; the caller commits. Raises NotFound or Conflict."""
    pauses.pause(connection, require(connection, viewer, job_id).id)


def resume(connection: sa.Connection, viewer: Viewer, job_id: str) -> bool:
    """Let a paused job go on; the caller commits, then sends a hint if one is due. Raises NotFound or Conflict."""
    return pauses.resume(connection, require(connection, viewer, job_id).id)


def approve(connection: sa.Connection, viewer: Viewer, job_id: str, reason: str | None = None) -> None:
    """Release a job that waits for a steward; the caller is one, commits, then sends a hint.

    Raises NotFound, Forbidden for the key that submitted it, Conflict when it does not wait.
    """
    approvals.approve(connection, require(connection, viewer, job_id), viewer.key_id, reason)


def reject(connection: sa.Connection, viewer: Viewer, job_id: str, reason: str) -> None:
    """Cancel a job that waits for a steward; the caller is one and commits. Raises NotFound or Conflict."""
    approvals.reject(connection, require(connection, viewer, job_id), viewer.key_id, reason)


def adapter(connection: sa.Connection, viewer: Viewer, job_id: str) -> sa.Row[Any]:
    """The file that holds a job's adapter. Raises NotFound, or Conflict while there is none."""
    row = require(connection, viewer, job_id)
    released = connection.execute(
        files.of_tenant(viewer)
        .join(release, release.c.file_id == file.c.id)
        .where(release.c.job_id == job_id, release.c.kind == "adapter", file.c.purpose == RESULT)
    ).one_or_none()
    if released is None:
        raise Conflict(f"there is no adapter: the job has status {row.status}", code="no_adapter")
    return released
