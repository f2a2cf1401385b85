"""The base models that jobs may name."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth import AnyKey
from api.deps import Service
from api.fields import Id
from domain.models import BaseModelFacts
from domain.refusals import NotFound
from dpcore.spec.methods import method_names

router = APIRouter(prefix="/v1/models", tags=["models"])


class Model(BaseModel):
    """A base model; sizes are read from its configuration."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tacit"
    revision: str
    parameters: int
    hidden_size: int
    layers: int
    max_length: int
    methods: list[str]


class Models(BaseModel):
    """All base models; the list is short and has no pages."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("")
def index(caller: AnyKey, service: Service) -> Models:
    """The allow-list."""
    return Models(data=[model_of(model) for model in service.models.values()])


@router.get("/{model_id}")
def show(model_id: Id, caller: AnyKey, service: Service) -> Model:
    """One base model."""
    if model_id not in service.models:
        raise NotFound("model")
    return model_of(service.models[model_id])


def model_of(model: BaseModelFacts) -> Model:
    """A base model as it goes over the wire."""
    return Model(
        id=model.name,
        created=model.created,
        revision=f"sha256:{model.revision}",
        parameters=model.facts.parameters,
        hidden_size=model.facts.hidden_size,
        layers=model.facts.layers,
        max_length=model.facts.max_positions,
        methods=list(method_names()),
    )
