"""Submitting: a job, its reservation and the ledger's entry in one transaction, or none of them."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from domain.access.grants import Viewer, used_by
from domain.files.binding import require_bound
from domain.jobs import life
from domain.jobs.planning import fits, rounded_up
from domain.jobs.resolving import Planned, budget_left
from domain.jobs.synthetic import as_kept
from domain.jobs.twins import already_done
from domain.kit.ids import new_id
from domain.kit.refusals import Invalid, NotFound, OverBudget
from domain.kit.tables import job_file
from domain.storage.blobs import Store
from dpcore.terms.teachers import teacher_job
from ledger import reserve
from ledger.budgets import Balance, balance
from ledger.errors import BudgetExceeded, GrantExceeded, IntendedUseMissing, NotGranted


def submit(
    connection: sa.Connection, planned: Planned, store: Store, *, job_id: str, viewer: Viewer, check_first: bool
) -> None:
    """Insert the job, its reservation and the ledger entry; the caller commits, then sends a hint.

    Raises Conflict when the same job has succeeded already and nobody asked to pay again, or when a file is not tied to
    its rows, of which none is read; OverBudget, by the service's own check or, with `check_first` false or after losing
    a race, because the database refused (its error is then the cause); NotFound when the grant was revoked or has ended
    meanwhile; Invalid where the budget wants to know what a job is for and this one does not say;
    ledger.errors.BudgetFrozen.
    """
    if planned.finished_twin is not None and not planned.wanted.allow_duplicate:
        raise already_done(planned.finished_twin)
    if check_first:
        if planned.needs_intended_use:
            raise _unsaid()
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
    except IntendedUseMissing as error:
        raise _unsaid() from error
    except (BudgetExceeded, GrantExceeded) as error:
        budget = balance(connection, planned.budget.id)
        now = replace(planned, budget=budget, grant=used_by(connection, viewer, budget))
        raise _over_budget(now, now.accounts[-1 if isinstance(error, GrantExceeded) else 0], "database") from error


def _insert(connection: sa.Connection, planned: Planned, job_id: str, viewer: Viewer) -> None:
    wanted, program = planned.wanted, planned.draft.program
    life.queued(
        connection,
        job_id,
        rounded_up(planned.draft.epsilon),
        tenant_id=viewer.tenant_id,
        created_by=viewer.key_id,
        model=wanted.model,
        model_revision=planned.model_revision,
        teacher_job=teacher_job(program),
        validation_file=wanted.validation_file,
        method=planned.draft.method,
        plan=program.model_dump(mode="json"),
        privacy=planned.privacy(),
        seed=program.seed,
        suffix=wanted.suffix,
        metadata=dict(wanted.metadata),
        intended_use=wanted.intended_use,
        synthetic=None if wanted.synthetic is None else as_kept(wanted.synthetic),
        audit=wanted.audit,
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
    if any(receipt.waits for receipt in receipts):
        life.waiting(connection, job_id)


def _unsaid() -> Invalid:
    return Invalid(
        "this budget wants to know what a job is for: say it in intended_use",
        code="intended_use_needed",
        param="intended_use",
    )


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
    which: dict[str, Any]
    limit, which = f"the privacy budget of {account.epsilon:g}", {}
    if of_grant:
        limit, which = f"the grant's sub-limit of {account.epsilon:g}", {"grant": account.id}
        if planned.grant is not None and planned.grant.share is not None:
            limit = f"the grant's sub-limit, a share of {float(planned.grant.share):g},"
            which["grant_share_left"] = planned.grant.share_left(planned.budget)
        else:
            which["grant_left"] = budget_left(account, account.used)
    return OverBudget(
        f"{limit} has no room for {asked} beside what is spent and reserved; {advice}",
        code="grant_limit_exceeded" if of_grant else "privacy_budget_exceeded",
        param=f"privacy.{what}",
        budget=planned.budget.id,
        budget_left=budget_left(planned.budget, planned.budget.used),
        share_left=planned.budget.share_left,
        **which,
        largest_epsilon=largest["epsilon"],
        largest_share=largest["share"],
        refused_by=refused_by,
    )
