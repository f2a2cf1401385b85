"""The audit log: a row for each request that changes something or hands out rows, written before the answer goes."""

import json
import logging
import re

import sqlalchemy as sa
from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import Caller
from api.deps import Resources
from api.fields import ID_PATTERN
from api.metrics import template
from domain.kit.ids import new_id
from domain.kit.tables import audit

_CHANGES = {"POST", "PUT", "PATCH", "DELETE"}
_ONLY_LOOKS = {
    ("POST", "/v1/fine_tuning/jobs/estimate"),
    ("POST", "/v1/invitations/{invitation_id}/estimate"),
    ("GET", "/dashboard/estimate"),
}
_HANDS_OUT = {
    ("GET", "/v1/files/{file_id}/content"),
    ("GET", "/v1/fine_tuning/jobs/{job_id}/adapter"),
    ("GET", "/dashboard/jobs/{job_id}/adapter"),
    ("GET", "/dashboard/jobs/{job_id}/results/{file_id}"),
}
logger = logging.getLogger(__name__)


class Audited:
    """Writes who did what, on which id, and how it ended. Never a body, a name or a reason.

    A request that came with no living key is in the log of requests only: it is nobody's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        head: Message | None = None
        answered = False

        async def send_after_writing(message: Message) -> None:
            # The head waits for the first piece of the body, which names what was made.
            nonlocal head, answered
            answered = True
            if message["type"] == "http.response.start" and _is_audited(scope):
                head = message
                return
            if head is not None:
                first, head = head, None
                await self._write(scope, first["status"], message.get("body", b""))
                await send(first)
            await send(message)

        try:
            await self.app(scope, receive, send_after_writing)
        except Exception:
            if not answered and _is_audited(scope):
                await self._write(scope, 500, b"")
            raise

    async def _write(self, scope: Scope, status: int, body: bytes) -> None:
        caller: Caller = scope["caller"]
        service: Resources = scope["state"]["resources"]
        made = scope.get("made")  # by a form, whose answer only leads to it
        target = made or (_made(body) if status == 201 else _named(scope) if _was_found(status) else None)
        scope["audited"] = target
        row = {
            "id": new_id("audit"),
            "tenant_id": caller.tenant_id,
            "key_id": caller.key_id,
            "action": f"{scope['method']} {template(scope)}",
            "target": target,
            "status": status,
            "request_id": scope["request_id"],
        }
        try:
            await to_thread.run_sync(_insert, service.engine, row)
        except sa.exc.SQLAlchemyError as error:  # what was done is done: the answer must not say otherwise
            logger.error("no audit row was written: %s", type(error).__name__, extra={"facts": row})


def _is_audited(scope: Scope) -> bool:
    route = (scope["method"], template(scope))
    return "caller" in scope and (route in _HANDS_OUT or (scope["method"] in _CHANGES and route not in _ONLY_LOOKS))


def _was_found(status: int) -> bool:
    """Whether what the path names was certainly looked up and found: what is another tenant's is not repeated."""
    return status < 400 or status == 409


def _named(scope: Scope) -> str | None:
    """The ids in the path. Whatever else a caller put there is not repeated."""
    return "/".join(v for v in scope.get("path_params", {}).values() if re.fullmatch(ID_PATTERN, str(v))) or None


def _made(body: bytes) -> str | None:
    """The id of what was made."""
    try:
        made = json.loads(body)["id"]
    except (ValueError, KeyError, TypeError):
        return None
    return made if isinstance(made, str) else None


def _insert(engine: sa.Engine, row: dict[str, object]) -> None:
    with engine.begin() as connection:
        connection.execute(audit.insert().values(**row))
