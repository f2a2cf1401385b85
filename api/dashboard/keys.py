"""API keys: read by stewards; made, given a new secret and revoked by administrators. A secret is on the page that
answers and nowhere else: in no address, and kept by no browser (every page is `no-store`)."""

from typing import Any, get_args

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import Caller, allowed
from api.dashboard.forms import RefusedForm, filled, parse, tried
from api.dashboard.render import page
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service, Transaction
from api.fields import Id
from api.keys import endpoints as keys_api
from api.keys.schemas import ApiKey, NewKey, Rotation, Scope, key_of
from api.pages import After
from domain.kit.refusals import NotFound
from domain.kit.tables import api_key

router = APIRouter(prefix="/keys")
_steward = allowed("steward")
_admin = allowed("admin")
SCOPES = get_args(Scope)


@router.get("")
def index(request: Request, visit: Visit, connection: Transaction, after: After = None) -> Response:
    """The tenant's keys, newest first, and the form for another."""
    _steward(visit.caller)
    return _list(request, visit.caller, connection, after)


@router.post("")
def make(request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction) -> Response:
    """Make a key; its secret is in the answer alone."""
    _admin(visit.caller)
    sent = filled(posted, "name", "project", "expires_in_days", *(f"scope_{scope}" for scope in SCOPES))
    made = tried(connection, "make", sent, lambda: keys_api.create(_key_of(sent), visit.caller, service, connection))
    if isinstance(made, RefusedForm):
        return _list(request, visit.caller, connection, None, made)
    request.scope["made"] = made.id  # for the audit log
    return page(request, "key-secret.html", key=made, rotated=False)


@router.get("/{key_id}")
def show(key_id: Id, request: Request, visit: Visit, connection: Transaction) -> Response:
    """One key, and what may be done to it."""
    _steward(visit.caller)
    return _one(request, _require(key_id, visit.caller, connection))


@router.post("/{key_id}/rotate")
def rotate(
    key_id: Id, request: Request, visit: Visit, posted: Posted, service: Service, connection: Transaction
) -> Response:
    """Give a key a new secret; it is in the answer alone."""
    _admin(visit.caller)
    sent = filled(posted, "overlap_hours")
    made = tried(
        connection,
        "rotate",
        sent,
        lambda: keys_api.rotate(key_id, parse(Rotation, sent), visit.caller, service, connection),
    )
    if isinstance(made, RefusedForm):
        return _one(request, _require(key_id, visit.caller, connection), made)
    return page(request, "key-secret.html", key=made, rotated=True)


@router.post("/{key_id}/revoke")
def revoke(key_id: Id, visit: Visit, posted: Posted, connection: Transaction) -> Response:
    """Make a key useless, for good."""
    _admin(visit.caller)
    keys_api.revoke(key_id, visit.caller, connection)
    return RedirectResponse(f"{PATH}/keys/{key_id}", 303)


def _key_of(sent: dict[str, str]) -> NewKey:
    """The API's request that the form stands for. Raises Invalid, naming the field."""
    values: dict[str, Any] = filled(sent, "name", "project", "expires_in_days")
    return parse(NewKey, values | {"scopes": [scope for scope in SCOPES if sent.get(f"scope_{scope}")]})


def _require(key_id: str, caller: Caller, connection: sa.Connection) -> ApiKey:
    own = sa.select(api_key).where(api_key.c.tenant_id == caller.tenant_id, api_key.c.id == key_id)
    row = connection.execute(own).one_or_none()
    if row is None:
        raise NotFound("key")
    return key_of(row)


def _list(
    request: Request, caller: Caller, connection: sa.Connection, after: str | None, refused: RefusedForm | None = None
) -> Response:
    found = keys_api.index(caller, connection, after=after)
    projects = sorted({key.project for key in found.data if key.project})
    status = refused.status if refused else 200
    return page(request, "keys.html", status=status, found=found, scopes=SCOPES, projects=projects, refused=refused)


def _one(request: Request, key: ApiKey, refused: RefusedForm | None = None) -> Response:
    return page(request, "key.html", status=refused.status if refused else 200, key=key, refused=refused)
