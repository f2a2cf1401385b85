"""Webhooks: who is told of what, elsewhere, and how that went."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.dashboard.forms import filled, parse
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service, Transaction
from api.fields import Id
from api.webhooks import endpoints as webhooks_api
from api.webhooks.schemas import NewWebhook
from domain.webhooks.events import WANTED

router = APIRouter(prefix="/webhooks")
_steward = allowed("steward")


@router.get("")
def index(request: Request, visit: Visit, service: Service, connection: Transaction) -> Response:
    """The tenant's webhooks."""
    return _shown(request, visit, service, connection)


@router.post("")
def create(request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Register one; its secret is on the page that answers, and on no other."""
    caller = _steward(visit.caller)
    body = parse(NewWebhook, filled(posted, "url", "low_below", "description") | {"events": _ticked(posted)})
    made = webhooks_api.create(body, caller, service, connection)
    return _shown(request, visit, service, connection, secret=made.secret, status=201)


@router.post("/{webhook_id}/remove")
def remove(webhook_id: Id, visit: Visit, posted: Posted, connection: Transaction) -> Response:
    """Tell it nothing more."""
    webhooks_api.remove(webhook_id, _steward(visit.caller), connection)
    return RedirectResponse(f"{PATH}/webhooks", 303)


def _ticked(posted: dict[str, str]) -> list[str]:
    return [event for event in WANTED if f"tell.{event}" in posted]


def _shown(
    request: Request, visit: Visit, service: Service, connection: Transaction, secret: str = "", status: int = 200
) -> Response:
    found = webhooks_api.index(_steward(visit.caller), connection).data
    allowed_hosts = bool(service.settings.webhook_hosts.strip())
    return page(
        request, "webhooks.html", status=status, hooks=found, events=list(WANTED), secret=secret, possible=allowed_hosts
    )
