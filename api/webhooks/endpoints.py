"""Webhooks: who is told, elsewhere, of a tenant's jobs and budgets. A steward's, who sees all of them."""

from fastapi import APIRouter

from api.auth import Steward
from api.deps import Service, Transaction
from api.fields import Id
from api.webhooks.schemas import CreatedWebhook, NewWebhook, Webhook, WebhookList, webhook_of
from domain.kit.settings import secret_bytes
from domain.webhooks import hooks
from domain.webhooks.hosts import require_registrable
from domain.webhooks.signing import secret_of, shown

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post("", status_code=201)
def create(body: NewWebhook, caller: Steward, service: Service, connection: Transaction) -> CreatedWebhook:
    """Be told of what happens from now on. The secret that signs the messages is in this answer and nowhere else."""
    require_registrable(body.url, service.settings.webhook_hosts)
    made = hooks.register(
        connection,
        caller,
        url=body.url,
        events=body.events,
        low_below=body.low_below,
        description=body.description,
    )
    secret = secret_of(made, secret_bytes(service.settings.key_pepper))
    return CreatedWebhook(**webhook_of(made).model_dump(), secret=shown(secret))


@router.get("")
def index(caller: Steward, connection: Transaction) -> WebhookList:
    """The tenant's webhooks, without their secrets, and how the last attempts went."""
    return WebhookList(data=[webhook_of(row) for row in connection.execute(hooks.of_tenant(caller))])


@router.delete("/{webhook_id}")
def remove(webhook_id: Id, caller: Steward, connection: Transaction) -> Webhook:
    """Tell it nothing more, what waits included."""
    return webhook_of(hooks.remove(connection, caller, webhook_id))
