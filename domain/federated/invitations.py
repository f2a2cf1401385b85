"""Invitations: a tenant's job asks to learn from a file of a named guest, and a steward of the guest lets it, up to a
price that is reserved there and then. Whether a tenant of that name exists is told to nobody."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from domain.access.grants import Viewer, sees_job, visible_budgets
from domain.jobs import acting, life
from domain.jobs.resolving import Planned, Wanted, plan_job, usable_private
from domain.jobs.submit import submit
from domain.kit.ids import new_id
from domain.kit.refusals import Conflict, Forbidden, Invalid, NotFound
from domain.kit.statuses import ENDED
from domain.kit.tables import file, invitation, job, silo
from domain.models.allow_list import Models
from domain.storage.blobs import Store
from dpcore.terms.methods.federated_lora import Options
from ledger.tables import budget

METHOD = "federated-lora"
DAYS = 14
PUBLIC_SEED = 0
"""Of a federated job that names none: all silos begin at the same factors."""
Standing = Literal["open", "accepted", "used", "ended", "withdrawn", "expired"]
"""ended: the guest's job, before any federated job took it up."""


@dataclass(frozen=True)
class Proposal:
    """What is asked of a guest: what it would do there, from public values alone."""

    guest: str
    model: str
    training_file: str
    options: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]
    seed: int | None
    note: str | None
    days: int


def propose(connection: sa.Connection, viewer: Viewer, models: Models, proposal: Proposal) -> str:
    """Put down an invitation; answers its id. The caller commits.

    Raises Invalid or NotFound, naming the field: what would be refused as a job of the caller's own is refused here.
    """
    source = usable_private(connection, viewer, proposal.training_file, "training_file")
    tried = plan_job(connection, viewer, models, _wanted(proposal, source.id))
    unit = connection.execute(sa.select(budget.c.unit).where(budget.c.id == source.budget_id)).scalar_one()
    made = new_id("inv", "-")
    connection.execute(
        invitation.insert().values(
            id=made,
            tenant_id=viewer.tenant_id,
            created_by=viewer.key_id,
            file_id=source.id,
            guest=proposal.guest,
            note=proposal.note,
            expires_at=sa.func.now() + sa.func.make_interval(0, 0, 0, proposal.days),
            asked={
                "model": proposal.model,
                "model_revision": tried.model_revision,
                "options": {**tried.draft.program.options, "silos": []},
                "hyperparameters": dict(proposal.hyperparameters),
                "seed": tried.draft.program.seed,
                "task": source.task,
                "labels": list(source.labels or ()),
                "max_length": source.max_length,
                "unit": unit,
            },
        )
    )
    return made


def _wanted(proposal: Proposal, training_file: str) -> Wanted:
    """The caller's own silo, at a share that is sure to be valid: what is proposed is the rest."""
    return Wanted(
        model=proposal.model,
        training_file=training_file,
        validation_file=None,
        method=METHOD,
        options={**proposal.options, "silos": []},
        hyperparameters=proposal.hyperparameters,
        epsilon=None,
        share=0.5,
        delta=None,
        seed=PUBLIC_SEED if proposal.seed is None else proposal.seed,
        suffix=None,
        metadata={},
    )


def of_viewer(viewer: Viewer) -> sa.Select[Any]:
    """Invitations that the viewer may see: those sent for a file that it sees, and, for stewards, those to its
    tenant. Beside them: the status of the guest's job, and the federated job that takes them up, as `federated_job` to
    who of the host may see it."""
    sent = invitation.c.tenant_id == viewer.tenant_id
    if not viewer.may("steward"):
        budgets = sa.select(file.c.id).where(file.c.budget_id.in_(visible_budgets(viewer)))
        sent = sa.and_(sent, invitation.c.file_id.in_(budgets))
    received = sa.and_(invitation.c.guest == viewer.tenant_id, sa.literal(viewer.may("steward")))
    hosts = sa.and_(invitation.c.tenant_id == viewer.tenant_id, sees_job(viewer, silo.c.parent_id))
    return (
        sa.select(
            invitation,
            job.c.status.label("job_status"),
            silo.c.parent_id,
            silo.c.name.label("silo"),
            sa.case((hosts, silo.c.parent_id)).label("federated_job"),
        )
        .join(job, job.c.id == invitation.c.job_id, isouter=True)
        .join(silo, silo.c.job_id == invitation.c.job_id, isouter=True)
        .where(sa.or_(sent, received))
    )


def require(connection: sa.Connection, viewer: Viewer, invitation_id: str, *, lock: bool = False) -> sa.Row[Any]:
    """The invitation, if the viewer may see it. Raises NotFound."""
    wanted = of_viewer(viewer).where(invitation.c.id == invitation_id)
    row = connection.execute(wanted.with_for_update(of=invitation) if lock else wanted).one_or_none()
    if row is None:
        raise NotFound("invitation")
    return row


def status_of(row: sa.Row[Any]) -> Standing:
    """Where an invitation stands, of a row of `of_viewer`."""
    if row.withdrawn_at is not None:
        return "withdrawn"
    if row.job_id is None:
        return "expired" if row.expires_at <= datetime.now(UTC) else "open"
    if row.parent_id is not None:
        return "used"
    return "ended" if row.job_status in ENDED else "accepted"


def require_open(connection: sa.Connection, viewer: Viewer, invitation_id: str, *, lock: bool = False) -> sa.Row[Any]:
    """An invitation that the viewer's tenant may still accept. Raises NotFound, Forbidden for its host, Conflict."""
    row = require(connection, viewer, invitation_id, lock=lock)
    if row.guest != viewer.tenant_id:
        raise Forbidden("an invitation is accepted by its guest", code="not_the_guest")
    if status_of(row) != "open":
        raise Conflict(f"the invitation is {status_of(row)}", code="invitation_not_open")
    return row


@dataclass(frozen=True)
class Terms:
    """What a guest's steward accepts an invitation with."""

    training_file: str
    epsilon: float | None
    share: float | None
    queue_days: int | None
    intended_use: str | None = None


def plan_acceptance(
    connection: sa.Connection, viewer: Viewer, models: Models, row: sa.Row[Any], terms: Terms
) -> Planned:
    """What taking part would cost the guest's budget. Raises Invalid, Conflict or NotFound, naming the field."""
    asked = row.asked
    source = usable_private(connection, viewer, terms.training_file, "training_file")
    if source.task != asked["task"]:
        raise Invalid(
            f"the invitation is for the task {asked['task']}, the file for {source.task}",
            code="tasks_differ",
            param="training_file",
        )
    if set(source.labels or ()) != set(asked["labels"]):
        raise Invalid(
            "the file's labels are not those of the invitation; all silos have the same labels",
            code="labels_differ",
            param="training_file",
        )
    planned = plan_job(
        connection,
        viewer,
        models,
        Wanted(
            model=asked["model"],
            training_file=terms.training_file,
            validation_file=None,
            method=METHOD,
            options=asked["options"],
            hyperparameters=asked["hyperparameters"],
            epsilon=terms.epsilon,
            share=terms.share,
            delta=None,
            seed=asked["seed"],
            suffix=None,
            metadata={},
            queue_days=terms.queue_days,
            intended_use=terms.intended_use,
            allow_duplicate=True,
        ),
    )
    if planned.budget.unit != asked["unit"]:
        raise Invalid(
            f"the invitation protects each {asked['unit']}, the file's budget each {planned.budget.unit}",
            code="units_differ",
            param="training_file",
        )
    if planned.model_revision != asked["model_revision"]:
        raise Conflict(
            f"the model {asked['model']} has other weights than when the invitation was made; ask for another one",
            code="model_changed",
        )
    return planned


def accept(
    connection: sa.Connection,
    viewer: Viewer,
    models: Models,
    store: Store,
    invitation_id: str,
    terms: Terms,
    *,
    check_first: bool,
) -> str:
    """Reserve what taking part costs, in the guest's own ledger, for a job that waits for the federated one; answers
    its id. The caller is a steward of the guest and commits.

    Raises what `plan_acceptance` and `submit` raise, and Conflict for an invitation that is no longer open.
    """
    row = require_open(connection, viewer, invitation_id, lock=True)
    planned = plan_acceptance(connection, viewer, models, row, terms)
    job_id = new_id("ftjob", "-")
    submit(connection, planned, store, job_id=job_id, viewer=viewer, check_first=check_first)
    life.invited(connection, job_id)
    accepted = sa.update(invitation).where(invitation.c.id == invitation_id)
    connection.execute(accepted.values(job_id=job_id, accepted_by=viewer.key_id))
    return job_id


def withdraw(connection: sa.Connection, viewer: Viewer, invitation_id: str) -> None:
    """Take an invitation or its acceptance back, by either side; the caller commits.

    Before the federated job begins all that was reserved goes back; afterwards the silo leaves it for good, and steps
    that were authorised stay charged. Withdrawing twice changes nothing. Raises NotFound, Conflict after its end.
    """
    row = require(connection, viewer, invitation_id, lock=True)
    if row.guest == viewer.tenant_id and not viewer.may("steward"):
        raise NotFound("invitation")
    if row.withdrawn_at is not None:
        return
    if row.job_status in ENDED:
        raise Conflict("the job of this invitation has ended; there is nothing to withdraw", code="job_has_ended")
    if row.job_id is not None:
        acting.stop(connection, row.job_id)
    taken_back = sa.update(invitation).where(invitation.c.id == invitation_id)
    connection.execute(taken_back.values(withdrawn_by=viewer.key_id))


def with_public_seed(wanted: Wanted) -> Wanted:
    """A federated job's request: all silos begin at the factors of one public seed."""
    return replace(wanted, seed=PUBLIC_SEED) if wanted.method == METHOD and wanted.seed is None else wanted


def comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options without who takes part: the same for all silos."""
    return {**Options.model_validate(options).model_dump(mode="json"), "silos": []}
