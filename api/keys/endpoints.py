"""API keys of a tenant: made and revoked by its administrators, listed for its stewards too."""

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter

from api.auth import Admin, Steward
from api.deps import Service, Transaction
from api.fields import Id
from api.keys.schemas import ApiKey, CreatedKey, NewKey, Rotation, key_of
from api.pages import After, Order, Page, PageSize, fetch, page
from domain.access.keys import is_sealed, key_seal, new_key
from domain.kit.refusals import Conflict, NotFound
from domain.kit.settings import secret_bytes
from domain.kit.tables import api_key

router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201)
def create(body: NewKey, caller: Admin, service: Service, connection: Transaction) -> CreatedKey:
    """Make a key. Its secret is in this answer and nowhere else."""
    pepper = secret_bytes(service.settings.key_pepper)
    material = new_key(pepper)
    lifetime = None if body.expires_in_days is None else sa.func.make_interval(0, 0, 0, body.expires_in_days)
    values: dict[str, Any] = {
        "id": material.id,
        "tenant_id": caller.tenant_id,
        "name": body.name,
        "prefix": material.prefix,
        "mac": material.mac,
        "scopes": sorted(set(body.scopes)),
        "project": body.project,
    }
    row = connection.execute(
        api_key.insert()
        .values(
            **values,
            expires_at=None if lifetime is None else sa.func.now() + lifetime,
            seal=key_seal(values, pepper),
        )
        .returning(api_key)
    ).one()
    return CreatedKey(**key_of(row).model_dump(), key=material.text)


@router.post("/{key_id}/rotate")
def rotate(key_id: Id, body: Rotation, caller: Admin, service: Service, connection: Transaction) -> CreatedKey:
    """Give a key a new secret: same id, scopes and grants. The secret before works on for the overlap; one that still
    did from an earlier rotation ends now."""
    own = sa.and_(api_key.c.tenant_id == caller.tenant_id, api_key.c.id == key_id)
    old = connection.execute(sa.select(api_key).where(own).with_for_update()).one_or_none()
    if old is None:
        raise NotFound("API key")
    pepper = secret_bytes(service.settings.key_pepper)
    if not is_sealed(old._asdict(), pepper):  # its secret may be somebody else's, and would work on for the overlap
        raise Conflict(
            "the key is not as the service wrote it: somebody has changed the database. Revoke it, make a new one and "
            "tell the operator",
            code="key_seal_broken",
        )
    material = new_key(pepper)
    secrets = {"mac": material.mac, "previous_mac": old.mac if body.overlap_hours else None}
    number = {"secret_number": old.secret_number + 1}  # counted by the database
    overlap = sa.func.now() + sa.func.make_interval(0, 0, 0, 0, body.overlap_hours)
    alive = sa.and_(api_key.c.revoked_at.is_(None), sa.func.coalesce(api_key.c.expires_at > sa.func.now(), True))
    row = connection.execute(
        sa.update(api_key)
        .where(own, alive)
        .values(
            **secrets,
            prefix=material.prefix,
            previous_until=overlap if body.overlap_hours else None,
            seal=key_seal(old._asdict() | secrets | number, pepper),
        )
        .returning(api_key)
    ).one_or_none()
    if row is None:
        raise Conflict("the key is revoked or has expired; make a new one", code="dead_key")
    return CreatedKey(**key_of(row).model_dump(), key=material.text)


@router.get("")
def index(
    caller: Steward, connection: Transaction, after: After = None, limit: PageSize = 20, order: Order = "desc"
) -> Page[ApiKey]:
    """The tenant's keys, without their secrets: whose they are, and which projects there are to grant something to."""
    scoped = sa.select(api_key).where(api_key.c.tenant_id == caller.tenant_id)
    rows, more = fetch(connection, scoped, api_key, after=after, limit=limit, order=order)
    return page([key_of(row, with_prefix=caller.may("admin")) for row in rows], more)


@router.delete("/{key_id}")
def revoke(key_id: Id, caller: Admin, connection: Transaction) -> ApiKey:
    """Make a key useless, at once and for good."""
    if key_id == caller.key_id:
        raise Conflict("a key cannot revoke itself; use another administrator's key", code="own_key")
    row = connection.execute(
        sa.update(api_key)
        .where(api_key.c.tenant_id == caller.tenant_id, api_key.c.id == key_id)
        .values(revoked_at=sa.func.coalesce(api_key.c.revoked_at, sa.func.now()))
        .returning(api_key)
    ).one_or_none()
    if row is None:
        raise NotFound("key")
    return key_of(row)
