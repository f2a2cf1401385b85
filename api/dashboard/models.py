"""The base models: what each can learn, and what is wrong with those that cannot be used."""

from fastapi import APIRouter, Request, Response

from api.dashboard.render import page
from api.dashboard.session import Visit
from api.deps import Service, Transaction
from api.models import endpoints as models_api

router = APIRouter()


@router.get("/models")
def index(request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The allow-list."""
    return page(request, "models.html", models=models_api.index(visit.caller, service, connection).data)
