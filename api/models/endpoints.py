"""The base models that jobs may name."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.auth import AnyKey
from api.deps import Service, Transaction
from api.fields import Id
from domain import profiles
from domain.models import BaseModelFacts
from domain.refusals import NotFound
from dpcore.spec.tasks import TaskKind

router = APIRouter(prefix="/v1/models", tags=["models"])


class Profile(BaseModel):
    """What a worker of this installation measured on synthetic input."""

    method: str
    task: TaskKind = Field(description="classification stands for pair too, completion for chat and text")
    device: str
    max_length: int = Field(description="tokens of each record")
    tokens_per_second: float
    peak_bytes: int = Field(description="of the GPU's memory; on a processor, of the process")
    measured_at: int


class Model(BaseModel):
    """A base model; sizes are read from its configuration."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tacit"
    revision: str = Field(description="sha256 of its weights")
    source: str = Field(description="package, folder, or hub:owner/name@revision")
    tasks: list[TaskKind] = Field(description="kinds of file that it can learn from")
    parameters: int
    hidden_size: int
    layers: int
    max_length: int
    methods: list[str] = Field(description="that can train it on at least one of its tasks")
    profile: list[Profile] = Field(description="empty until a worker has been idle for long enough to measure")


class Models(BaseModel):
    """All base models; the list is short and has no pages."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("")
def index(caller: AnyKey, service: Service, connection: Transaction) -> Models:
    """The allow-list."""
    return Models(data=[model_of(model, profiles.newest(connection, model)) for model in service.models.values()])


@router.get("/{model_id}")
def show(model_id: Id, caller: AnyKey, service: Service, connection: Transaction) -> Model:
    """One base model."""
    if model_id not in service.models:
        raise NotFound("model")
    model = service.models[model_id]
    return model_of(model, profiles.newest(connection, model))


def model_of(model: BaseModelFacts, measured: Sequence[profiles.Profile]) -> Model:
    """A base model as it goes over the wire."""
    return Model(
        id=model.name,
        created=model.created,
        revision=f"sha256:{model.revision}",
        source=model.source,
        tasks=list(model.facts.tasks),
        parameters=model.facts.parameters,
        hidden_size=model.facts.hidden_size,
        layers=model.facts.layers,
        max_length=model.facts.max_positions,
        methods=sorted({name for task in model.facts.tasks for name in model.methods(task)}),
        profile=[profile_of(one) for one in measured],
    )


def profile_of(one: profiles.Profile) -> Profile:
    """A measurement as it goes over the wire."""
    return Profile(
        method=one.method,
        task=one.task,
        device=one.device,
        max_length=one.max_length,
        tokens_per_second=round(one.tokens_per_second, 1),
        peak_bytes=one.peak_bytes,
        measured_at=int(one.measured_at.timestamp()),
    )
