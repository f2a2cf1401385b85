"""What a job of several silos shows beside what any job does, as the API says it."""

from pydantic import BaseModel, Field

from api.jobs.privacy import Finite
from domain.federated.invitations import METHOD
from domain.federated.reading import FederatedPart, SiloState, longest_message
from domain.jobs.resolving import Planned
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods.federated_lora import Options


class JobSilo(BaseModel):
    """One of the private files that a federated job learns from, as every tenant that takes part may know it."""

    name: str
    own: bool = Field(description="whether it is of the caller's tenant")
    tenant: str | None = Field(description="the guest, as it was invited; null for the job's own training file")
    job: str | None = Field(description="the silo's own job, where that is of the caller's tenant")
    state: SiloState = Field(
        description="waiting: no round is open; working: its message of the open round is awaited; sent: that is "
        "there, or the silo took part to the end; left: it takes part no longer"
    )
    declared_size: int = Field(description="by which its messages are weighted")
    rounds_sent: int
    rounds_missed: int = Field(description="closed rounds that counted no message of it")


class JobRounds(Finite):
    """How far a federated job is, and what travels in each round, by arithmetic on shapes."""

    total: int
    done: int = Field(description="closed")
    open: int | None = Field(description="number of the round that is open, counted from 0")
    sent: int | None = Field(description="messages that this silo sent; null for the federated job")
    missed: int | None = Field(description="closed rounds that counted none of it; null for the federated job")
    message_bytes: int | None = Field(
        description="of a silo's message in the longest round, without names and shapes; null where the model is gone"
    )
    model_ratio: float | None = Field(description="how many times that the whole model is")


class PlannedRounds(Finite):
    """Rounds of a federated job, and what each would send."""

    total: int
    message_bytes: int = Field(description="of a silo's message in the longest round, without names and shapes")
    model_ratio: float = Field(description="how many times that the whole model is")


def silos_of(part: FederatedPart | None) -> list[JobSilo] | None:
    """Null for all but a federated job."""
    if part is None or part.silos is None:
        return None
    return [
        JobSilo(
            name=one.name,
            own=one.own,
            tenant=one.guest,
            job=one.job,
            state=one.state,
            declared_size=one.declared_size,
            rounds_sent=one.sent,
            rounds_missed=one.missed,
        )
        for one in part.silos
    ]


def rounds_of(part: FederatedPart | None) -> JobRounds | None:
    """Null for a job that has none."""
    if part is None:
        return None
    return JobRounds(
        total=part.total,
        done=part.done,
        open=part.open,
        sent=part.sent,
        missed=part.missed,
        message_bytes=None if part.message is None else part.message.bytes,
        model_ratio=None if part.message is None else round(part.message.ratio, 2),
    )


def planned_rounds(planned: Planned, facts: ModelFacts) -> PlannedRounds | None:
    """Null for another method."""
    program, (training, *_) = planned.draft.program, planned.sources
    if program.method != METHOD:
        return None
    options = Options.model_validate(program.options)
    message = longest_message(options, facts, labels=len(training.labels or ()), task=training.task)
    return PlannedRounds(total=options.rounds, message_bytes=message.bytes, model_ratio=round(message.ratio, 2))
