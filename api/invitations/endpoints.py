"""Invitations to federated jobs: sent by those who plan one, answered by stewards of the guest."""

import sqlalchemy as sa
from fastapi import APIRouter, BackgroundTasks

from api.auth import Caller, Steward, StewardOrAnalyst
from api.deps import Service, Transaction
from api.fields import Id
from api.invitations.schemas import Acceptance, Invitation, NewInvitation, readable
from api.jobs.schemas import Estimate, estimate_of
from api.pages import After, Order, Page, PageSize, fetch, page
from domain.access import quotas
from domain.federated import invitations
from domain.kit.refusals import Conflict
from domain.kit.tables import invitation

router = APIRouter(prefix="/v1/invitations", tags=["federated"])


@router.post("", status_code=201)
def create(body: NewInvitation, caller: StewardOrAnalyst, service: Service, connection: Transaction) -> Invitation:
    """Ask a tenant to take part in a federated job with a file of its own. Free: nothing is reserved by it."""
    quotas.require_few_invitations(connection, caller.tenant_id)
    made = invitations.propose(connection, caller, service.models, body.proposal())
    return _shown(connection, caller, made)


@router.get("")
def index(
    caller: StewardOrAnalyst, connection: Transaction, after: After = None, limit: PageSize = 20, order: Order = "desc"
) -> Page[Invitation]:
    """Invitations sent for files that the caller sees; to stewards also those that their tenant received."""
    scoped = invitations.of_viewer(caller)
    rows, more = fetch(connection, scoped, invitation, after=after, limit=limit, order=order)
    return page(readable(rows, caller), more)


@router.get("/{invitation_id}")
def show(invitation_id: Id, caller: StewardOrAnalyst, connection: Transaction) -> Invitation:
    """One invitation."""
    return _shown(connection, caller, invitation_id)


@router.post("/{invitation_id}/estimate")
def estimate(
    invitation_id: Id, body: Acceptance, caller: Steward, service: Service, connection: Transaction
) -> Estimate:
    """What taking part would cost the guest's budget. Free, and told to the guest alone."""
    row = invitations.require_open(connection, caller, invitation_id)
    models = service.models
    planned = invitations.plan_acceptance(connection, caller, models, row, body.terms())
    return estimate_of(planned, models.usable[planned.wanted.model].facts)


@router.post("/{invitation_id}/accept")
def accept(
    invitation_id: Id,
    body: Acceptance,
    caller: Steward,
    service: Service,
    connection: Transaction,
    after_commit: BackgroundTasks,
) -> Invitation:
    """Take part: what it may cost is reserved in the guest's own ledger now, in a job that waits for the others."""
    quotas.require_few_jobs(connection, caller.tenant_id, service.settings.job_quota)
    invitations.accept(
        connection,
        caller,
        service.models,
        service.store,
        invitation_id,
        body.terms(),
        check_first=service.check_first,
    )
    after_commit.add_task(service.keeper.tell_witness)
    return _shown(connection, caller, invitation_id)


@router.post("/{invitation_id}/withdraw")
def withdraw(invitation_id: Id, caller: StewardOrAnalyst, connection: Transaction) -> Invitation:
    """Take an invitation, or its acceptance, back. Before the job begins all that was reserved goes back; afterwards
    the silo leaves it for good, and steps that were authorised stay charged."""
    invitations.withdraw(connection, caller, invitation_id)
    return _shown(connection, caller, invitation_id)


def _shown(connection: sa.Connection, caller: Caller, invitation_id: str) -> Invitation:
    """The invitation as it is now. Raises NotFound, or Conflict for one whose row is damaged."""
    found = readable([invitations.require(connection, caller, invitation_id)], caller)
    if not found:
        raise Conflict(
            "the row of this invitation in the database is damaged: tell the operator", code="invitation_unreadable"
        )
    return found[0]
