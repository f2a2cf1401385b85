"""The operator's page: what runs, what waits, and what is wrong."""

from fastapi import APIRouter, Request, Response

from api.auth import allowed
from api.dashboard.render import page
from api.dashboard.session import Visit
from api.deps import Service, Transaction
from api.status import endpoints as status_api
from api.status.endpoints import Answered

router = APIRouter()
_admin = allowed("admin")


@router.get("/status")
def show(request: Request, visit: Visit, answered: Answered, service: Service, connection: Transaction) -> Response:
    """How the service does."""
    report = status_api.show(request, _admin(visit.caller), answered, service, connection)
    return page(request, "status.html", live=15, report=report)
