"""What the plan of a job over users says beside what any plan does, as the API says it."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from api.jobs.privacy import Finite
from domain.jobs import over_users
from domain.jobs.resolving import Planned
from dpcore.terms.facts import ModelFacts
from dpcore.terms.measuring import trained_on

Population = Annotated[
    int | None,
    Query(ge=2, le=10**12, description="users of a larger, imagined population that a job over users is priced for"),
]
Cohort = Annotated[
    int | None,
    Query(ge=1, le=10**9, description="of whom so many are drawn in a round; default: the same part of them as here"),
]
NOTE = "imagined: this file's own users are protected by the epsilon above, and by no other"


class PlannedUpdates(Finite):
    """What a device would send in each round."""

    message_bytes: int
    model_ratio: float = Field(description="how many times that the whole model is")
    head_bytes: int = Field(description="that the output layer of one local step needs")
    signal_to_noise: float = Field(
        description="at most, of a round's mean update: as if all users pulled one way, as far as clip_norm lets them"
    )


class ImaginedPopulation(Finite):
    """What the same rounds, with the same noise in the mean update, would cost on a population that is not there."""

    population: int
    cohort: int = Field(description="users drawn in a round, on average")
    noise_multiplier: float
    epsilon: float
    delta: float
    note: str = NOTE


def planned_updates(planned: Planned, facts: ModelFacts) -> PlannedUpdates | None:
    """Null for a job that is not over users."""
    found = over_users.updates(planned.draft.program, facts, planned.sources[0].task)
    if found is None:
        return None
    return PlannedUpdates(
        message_bytes=found.bytes,
        model_ratio=round(found.model_ratio, 2),
        head_bytes=found.head_bytes,
        signal_to_noise=round(found.signal_to_noise, 4),
    )


def imagined(planned: Planned, population: int | None, cohort: int | None) -> list[ImaginedPopulation]:
    """None for a job that is not over users. Raises Invalid, naming the parameter."""
    size = trained_on(planned.sources[0].declared_size, planned.budget.held_out)
    return [
        ImaginedPopulation(
            population=one.population,
            cohort=one.cohort,
            noise_multiplier=one.noise_multiplier,
            epsilon=one.epsilon,
            delta=one.delta,
        )
        for one in over_users.imagined(planned.draft, planned.budget, size, population, cohort)
    ]
