"""What workers measured about training the base models on synthetic input, and what that says about a job."""

from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from domain.models import BaseModelFacts
from domain.tables import model_profile
from dpcore.spec.plan import Plan
from dpcore.spec.tasks import CAUSAL_LM, TaskKind


@dataclass(frozen=True)
class Measured:
    """One measurement: no row of anybody had a part in it."""

    method: str
    task: TaskKind
    """classification, or completion where the model writes: what `measured_as` makes of a task."""
    device: str
    """The processor or GPU by name."""
    max_length: int
    """Tokens of each synthetic record."""
    tokens_per_second: float
    """Of whole steps: gradients, clipping, noise and the optimiser."""
    peak_bytes: int
    """Of the device's memory; on a processor, of the process."""


@dataclass(frozen=True)
class Profile(Measured):
    measured_at: datetime


def measured_as(task: TaskKind) -> TaskKind:
    """The task that stands for this one: what is computed differs between labels and text alone."""
    return "completion" if task in CAUSAL_LM else "classification"


def record(connection: sa.Connection, model: BaseModelFacts, measured: Measured) -> None:
    """Keep a measurement beside older ones."""
    connection.execute(
        model_profile.insert().values(model=model.name, revision=model.revision, **asdict(measured)).inline()
    )


def newest(connection: sa.Connection, model: BaseModelFacts) -> list[Profile]:
    """The newest measurement of each method, task and device; a model with other weights has none of them."""
    table, apart = model_profile.c, (model_profile.c.method, model_profile.c.task, model_profile.c.device)
    rows = connection.execute(
        sa.select(*apart, table.max_length, table.tokens_per_second, table.peak_bytes, table.measured_at)
        .ext(distinct_on(*apart))
        .where(table.revision == model.revision)
        .order_by(*apart, table.measured_at.desc(), table.id.desc())
    )
    return [Profile(**row._mapping) for row in rows]


def expected(connection: sa.Connection, model: BaseModelFacts, method: str, task: TaskKind) -> Profile | None:
    """What a job must reckon with: the slowest of the devices that were measured; None before any was."""
    fitting = [p for p in newest(connection, model) if (p.method, p.task) == (method, measured_as(task))]
    return min(fitting, key=lambda p: p.tokens_per_second, default=None)


def seconds(plan: Plan, profile: Profile) -> float:
    """Seconds of training if every record had the most tokens; from public values alone, start and waiting apart."""
    return plan.steps * plan.expected_batch * plan.max_length / profile.tokens_per_second
