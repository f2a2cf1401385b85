"""Who calls: Bearer keys, and scopes as types, so that an endpoint's signature says who may call it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.deps import Resources, Service
from api.errors import HttpError
from domain.access.grants import Viewer
from domain.access.keys import is_sealed, key_mac, well_formed
from domain.kit.settings import secret_bytes
from domain.kit.tables import api_key

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer tacit_...`")
_CHALLENGE = {"www-authenticate": "Bearer"}
logger = logging.getLogger(__name__)


Caller = Viewer
"""The key that a request came with."""


def authenticated(
    request: Request, service: Service, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """The caller behind the Bearer key. A connection of its own: an upload's must not wait in a transaction."""
    if credentials is None:
        raise _unauthorised("missing_api_key", "no API key: send the header `Authorization: Bearer tacit_...`")
    if not well_formed(credentials.credentials):
        raise _unauthorised("invalid_api_key", "this is not an API key of this service; was it copied whole?")
    mac = key_mac(credentials.credentials, secret_bytes(service.settings.key_pepper))
    rotated = sa.and_(api_key.c.previous_mac == mac, api_key.c.previous_until > sa.func.now())
    caller = find_caller(service, sa.or_(api_key.c.mac == mac, rotated))
    require_patience(service, caller)
    request.scope["caller"] = caller  # for the audit log, which nobody can flood
    return caller


def find_caller(service: Resources, which: sa.ColumnElement[bool]) -> Caller:
    """The caller behind the one key that this is true of. Raises HttpError unless the key is alive."""
    expired = api_key.c.expires_at <= sa.func.now()
    with service.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # one statement
        row = connection.execute(
            sa.select(api_key, sa.func.coalesce(expired, False).label("expired")).where(which)
        ).one_or_none()
    if row is not None and not is_sealed(row._asdict(), secret_bytes(service.settings.key_pepper)):
        logger.error("ALARM: the API key %s is not as the service wrote it: the database was changed", row.id)
        row = None
    if row is None:
        raise _unauthorised("invalid_api_key", "no such API key")
    if row.revoked_at is not None:
        raise _unauthorised("revoked_api_key", "this API key was revoked; ask an administrator for a new one")
    if row.expired:
        raise _unauthorised("expired_api_key", "this API key has expired; ask an administrator for a new one")
    return Caller(row.id, row.tenant_id, frozenset(row.scopes), row.project)


def require_patience(service: Resources, caller: Caller) -> None:
    """Raises HttpError while the key has asked too often. It counts this key's requests alone."""
    wait = service.rate.take(caller.key_id)
    if wait:
        message = f"this key may ask {service.settings.rate_limit} times a minute; try again in {wait} seconds"
        raise HttpError(429, "rate_limit_exceeded", message, headers={"retry-after": str(wait)})


def allowed(*scopes: str) -> Callable[[Caller], Caller]:
    """Lets in callers with any of these scopes, and administrators; raises HttpError for others."""

    def check(caller: Caller) -> Caller:
        if not any(caller.may(scope) for scope in scopes):
            needed = " or ".join(scopes)
            raise HttpError(403, "missing_scope", f"this needs a key with the scope {needed}")
        return caller

    return check


def _with(*scopes: str) -> Callable[[Caller], Awaitable[Caller]]:
    """The same as a dependency."""
    check = allowed(*scopes)

    async def dependency(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
        return check(caller)

    return dependency


def _unauthorised(code: str, message: str) -> HttpError:
    return HttpError(401, code, message, headers=_CHALLENGE)


AnyKey = Annotated[Caller, Depends(authenticated)]
Steward = Annotated[Caller, Depends(_with("steward"))]
Analyst = Annotated[Caller, Depends(_with("analyst"))]
StewardOrAnalyst = Annotated[Caller, Depends(_with("steward", "analyst"))]
Auditor = Annotated[Caller, Depends(_with("auditor"))]
StewardOrAuditor = Annotated[Caller, Depends(_with("steward", "auditor"))]
Admin = Annotated[Caller, Depends(_with("admin"))]
