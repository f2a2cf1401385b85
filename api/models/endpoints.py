"""The base models that jobs may name."""

import re
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from api.auth import AnyKey, Caller
from api.deps import Service, Transaction
from api.fields import ID_PATTERN
from api.jobs.schemas import RESULT_PREFIX, result_name
from domain.jobs import reading
from domain.kit.refusals import NotFound
from domain.models import profiles
from domain.models.allow_list import BaseModelFacts, UnusableModel
from dpcore.terms.tasks import KINDS, TaskKind

router = APIRouter(prefix="/v1/models", tags=["models"])
_STANDS = {
    stand: " and ".join(name for name, kind in KINDS.items() if kind.measured_as == stand != name) for stand in KINDS
}
_MEASURED = "; ".join(f"{stand} stands for {others} too" for stand, others in _STANDS.items() if others)


class ModelProfile(BaseModel):
    """What a worker of this installation measured on synthetic input."""

    method: str
    task: TaskKind = Field(description=_MEASURED)
    device: str
    max_length: int = Field(description="tokens of each record")
    tokens_per_second: float
    peak_bytes: int = Field(description="of the GPU's memory; on a processor, of the process")
    device_bytes: int | None = Field(description="that the device has; null for a measurement of an earlier version")
    measured_at: int
    options: dict[str, Any] = Field(description="of the method, where not its defaults: what a preset chooses")


class RefusedMethod(BaseModel):
    """A method that does not train the model with its default options, as a worker found on made-up text."""

    method: str
    task: TaskKind = Field(description=_MEASURED)
    because: str
    tried_at: int


class Model(BaseModel):
    """A base model; sizes are read from its configuration, and are null where it cannot be used."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="time of its weights; 0 where it cannot be used")
    owned_by: str = "tacit"
    available: bool = Field(description="whether jobs may name it now")
    unavailable_because: str | None = Field(description="what is wrong with its files, where it cannot be used")
    revision: str | None = Field(description="sha256 of its weights")
    source: str = Field(description="package, folder, or hub:owner/name@revision")
    tasks: list[TaskKind] = Field(description="kinds of file that it can learn from")
    parameters: int | None
    hidden_size: int | None
    layers: int | None
    max_length: int | None
    methods: list[str] = Field(description="that can train it on at least one of its tasks")
    parent: str | None = Field(
        default=None, description="of the result of a job: its base model; null for a base model"
    )
    job: str | None = Field(default=None, description="of a result: the job whose adapter it is")
    refused: list[RefusedMethod] = Field(description="methods that were tried on it and cannot train it")
    profile: list[ModelProfile] = Field(description="empty until a worker has been idle for long enough to measure")


class ModelList(BaseModel):
    """All base models; the list is short and has no pages."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("")
def index(caller: AnyKey, service: Service, connection: Transaction) -> ModelList:
    """The allow-list, those that cannot be used now included."""
    now = service.models
    made = [model_of(model, profiles.known(connection, model)) for model in now.usable.values()]
    made += [unusable_of(model) for model in now.unusable.values()]
    return ModelList(data=sorted(made, key=lambda model: model.id))


@router.get("/{model_id}")
def show(
    model_id: Annotated[str, Path(pattern=r"^[^\x00-\x1f\x7f]{1,250}$")],
    caller: AnyKey,
    service: Service,
    connection: Transaction,
) -> Model:
    """One base model, or the result of a job that the caller may see, by the name in its `fine_tuned_model`."""
    if model_id.startswith(RESULT_PREFIX):
        return _result(connection, caller, model_id)
    now = service.models
    if model_id in now.unusable:
        return unusable_of(now.unusable[model_id])
    if model_id not in now.usable:
        raise NotFound("model")
    model = now.usable[model_id]
    return model_of(model, profiles.known(connection, model))


def _result(connection: sa.Connection, caller: Caller, name: str) -> Model:
    """A job's result as a model: of which job and base. Raises NotFound for what is none of the caller's."""
    job_id = name.rpartition(":")[2]
    if not re.fullmatch(ID_PATTERN, job_id):
        raise NotFound("model")
    try:
        row = reading.require(connection, caller, job_id)
    except NotFound:
        raise NotFound("model") from None
    if result_name(row) != name:
        raise NotFound("model")
    why = "jobs begin with base models; this is the result of one: download its adapter"
    shown = unusable_of(UnusableModel(name, f"job {row.id}", why))
    finished = {"created": int(row.finished_at.timestamp()), "tasks": [row.task] if row.task else []}
    return shown.model_copy(update=finished | {"parent": row.model, "job": row.id})


def model_of(model: BaseModelFacts, known: profiles.Measurements) -> Model:
    """A base model as it goes over the wire."""
    return Model(
        id=model.name,
        created=model.created,
        available=True,
        unavailable_because=None,
        revision=f"sha256:{model.revision}",
        source=model.source,
        tasks=list(model.facts.tasks),
        parameters=model.facts.parameters,
        hidden_size=model.facts.hidden_size,
        layers=model.facts.layers,
        max_length=model.facts.max_positions,
        methods=sorted({name for task in model.facts.tasks for name in known.methods(model, task)}),
        refused=[refused_of(trial) for trial in known.trials if trial.refusal is not None],
        profile=[profile_of(one) for one in known.profiles],
    )


def unusable_of(model: UnusableModel) -> Model:
    """A base model that cannot be used, as it goes over the wire."""
    return Model(
        id=model.name,
        created=0,
        available=False,
        unavailable_because=model.because,
        revision=None,
        source=model.source,
        tasks=[],
        parameters=None,
        hidden_size=None,
        layers=None,
        max_length=None,
        methods=[],
        refused=[],
        profile=[],
    )


def refused_of(trial: profiles.Trial) -> RefusedMethod:
    """A trial that went wrong, as it goes over the wire."""
    return RefusedMethod(
        method=trial.method,
        task=trial.task,
        because=trial.refusal or "",
        tried_at=int(trial.tried_at.timestamp()),
    )


def profile_of(one: profiles.Profile) -> ModelProfile:
    """A measurement as it goes over the wire."""
    return ModelProfile(
        method=one.method,
        task=one.task,
        device=one.device,
        max_length=one.max_length,
        tokens_per_second=round(one.tokens_per_second, 1),
        peak_bytes=one.peak_bytes,
        device_bytes=one.device_bytes,
        measured_at=int(one.measured_at.timestamp()),
        options=one.options,
    )
