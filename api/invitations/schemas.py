"""Invitations as they go over the wire. The host is told where its invitation stands, and nothing of the guest."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field, field_validator, model_validator

from api.fields import Body, Epsilon, IdInBody, IntendedUse, Reason, Share
from api.jobs.schemas import MethodChoice
from domain.access.grants import Viewer
from domain.federated.invitations import DAYS, METHOD, Proposal, Standing, Terms, status_of
from domain.kit.logs import type_name

logger = logging.getLogger(__name__)


class NewInvitation(Body):
    """What a federated job would do with a file of the guest's, as the job itself will say it later."""

    guest: IdInBody = Field(
        description="a tenant, by the `organization_id` of its jobs; whether there is one is not told"
    )
    model: IdInBody
    training_file: IdInBody = Field(description="the caller's own: the guest's has the same task and labels")
    method: MethodChoice = Field(
        default=MethodChoice(type=METHOD), description="federated-lora, without its silos: these are what is asked for"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None, description="of the adapter's initialisation, the same for all silos"
    )
    note: Reason | None = Field(default=None, description="to the guest's steward")
    days: int = Field(default=DAYS, ge=1, le=90, description="within which it may be accepted")

    @field_validator("method")
    @classmethod
    def _federated(cls, method: MethodChoice) -> MethodChoice:
        if method.type != METHOD:
            raise ValueError(f"an invitation is for the method {METHOD}")
        return method

    def proposal(self) -> Proposal:
        """The request as the domain takes it."""
        options = self.method.options
        numbers = options.pop("hyperparameters", None) or {}
        return Proposal(
            guest=self.guest,
            model=self.model,
            training_file=self.training_file,
            options=options,
            hyperparameters={name: value for name, value in numbers.items() if value is not None},
            seed=self.seed,
            note=self.note,
            days=self.days,
        )


class SiloPrice(Body):
    """What taking part may cost the guest's budget: epsilon or share."""

    epsilon: Epsilon | None = None
    share: Share | None = Field(default=None, description="of the budget's cap at its main order; shares add up")

    @model_validator(mode="after")
    def _one_of_them(self) -> "SiloPrice":
        if (self.share is None) == (self.epsilon is None):
            raise ValueError("say what taking part may cost: send epsilon or share, one of them")
        return self


class Acceptance(Body):
    """What a guest takes part with."""

    training_file: IdInBody = Field(description="a private file of the guest's")
    privacy: SiloPrice
    queue_days: int | None = Field(
        default=None, ge=1, le=30, description="within which the first round must begin; default and most: the budget's"
    )

    intended_use: IntendedUse | None = Field(default=None, description="what the guest takes part for")

    def terms(self) -> Terms:
        """The request as the domain takes it."""
        price = self.privacy
        return Terms(self.training_file, price.epsilon, price.share, self.queue_days, self.intended_use)


class Invitation(BaseModel):
    """A job's request to learn from a file of another tenant."""

    id: str
    object: Literal["invitation"] = "invitation"
    created_at: int
    expires_at: int = Field(description="it may be accepted until then")
    direction: Literal["sent", "received"]
    status: Standing = Field(
        description="open; accepted: the guest's part is reserved and waits for the job; used: a job has begun with "
        "it; ended: the guest's part ended before any job; withdrawn, by either side; expired"
    )
    tenant: str = Field(description="who invites")
    guest: str
    model: str
    task: str
    labels: list[str]
    unit: str = Field(description="that the job's budgets protect: the guest's must protect the same")
    method: dict[str, Any] = Field(description="as the job says it, without its silos")
    seed: int
    note: str | None
    job: str | None = Field(description="the guest's part, to the guest alone")
    federated_job: str | None = Field(description="that has begun with it, to the host alone")
    silo: str | None = Field(description="the guest's name in that job")


def invitation_of(row: sa.Row[Any], viewer: Viewer) -> Invitation:
    """A row of domain.federated.invitations.of_viewer."""
    asked, sent = row.asked, row.tenant_id == viewer.tenant_id
    options = {name: value for name, value in asked["options"].items() if name != "silos"}
    return Invitation(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        expires_at=int(row.expires_at.timestamp()),
        direction="sent" if sent else "received",
        status=status_of(row),
        tenant=row.tenant_id,
        guest=row.guest,
        model=asked["model"],
        task=asked["task"],
        labels=asked["labels"],
        unit=asked["unit"],
        method={"type": METHOD, METHOD: {**options, "hyperparameters": asked["hyperparameters"]}},
        seed=asked["seed"],
        note=row.note,
        job=row.job_id if row.guest == viewer.tenant_id and viewer.may("steward") else None,
        federated_job=row.federated_job,
        silo=row.silo,
    )


def readable(rows: Sequence[sa.Row[Any]], viewer: Viewer) -> list[Invitation]:
    """Invitations; a row that makes none is left out, so that no list ends at it."""
    found = []
    for row in rows:
        try:
            found.append(invitation_of(row, viewer))
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            what = "ALARM: the invitation %s cannot be read (%s): the database was changed"
            logger.error(what, row.id, type_name(error))
    return found
