"""The secret of a webhook, and the signature that it makes: Standard Webhooks, version v1.

The secret is kept nowhere: it follows from the API's pepper and the hook's own row. Whoever has the database alone
cannot sign, and a row that was changed, its address too, makes another secret than the one that the receiver knows.
"""

import base64
import hmac
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from domain.webhooks.events import WANTED
from ledger.canonical import packed

PREFIX = "whsec_"


def secret_of(hook: sa.Row[Any], pepper: bytes) -> bytes:
    """32 bytes. hook: a row of `webhook`."""
    row = hook._mapping
    wanted = [event for event, column in WANTED.items() if row[column.name]]
    text = ["tacit.webhook.v1", hook.id, hook.tenant_id, hook.created_by, hook.url, hook.salt.hex(), *wanted]
    return hmac.digest(hmac.digest(pepper, b"tacit.webhook", "sha256"), packed(text), "sha256")


def shown(secret: bytes) -> str:
    """As its owner is given it, once."""
    return PREFIX + base64.b64encode(secret).decode()


def headers(secret: bytes, id: str, at: int, body: bytes) -> Mapping[str, str]:
    """at: of sending, in seconds, of which the minute is told."""
    sent = str(at // 60 * 60)
    signature = hmac.digest(secret, b".".join([id.encode(), sent.encode(), body]), "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": sent,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
