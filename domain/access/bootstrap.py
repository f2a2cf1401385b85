"""What the admin login does: the first tenant with its key, and every tenant after it."""

import re
from collections.abc import Callable

import sqlalchemy as sa

from domain.access.keys import KeyMaterial, key_seal, new_key
from domain.kit.refusals import Conflict, Invalid
from domain.kit.tables import api_key, tenant

ALL_SCOPES = ["steward", "analyst", "auditor", "admin"]
FIRST_TENANT = "tenant_default"
"""The one whose first key whoever starts the service is given."""
NAME = re.compile("[a-z0-9][a-z0-9-]{0,39}")


def create_first_key(admin_url: str, pepper: bytes, keep: Callable[[str], None]) -> str | None:
    """The tenant `default` with one key of every scope; None when any key exists already.

    `keep` is given the key before the commit, so that no crash leaves a key that nobody knows.
    """
    engine = sa.create_engine(admin_url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("LOCK TABLE api_key IN SHARE ROW EXCLUSIVE MODE"))
            if connection.execute(sa.select(api_key.c.id).limit(1)).first():
                return None
            made = _tenant(connection, "default", pepper)
            keep(made)
            return made
    finally:
        engine.dispose()


def create_tenant(admin_url: str, name: str, pepper: bytes, keep: Callable[[str], None]) -> str:
    """Another tenant with one key of every scope; answers its id. `keep` as above. Raises Invalid or Conflict."""
    if not NAME.fullmatch(name):
        message = f"the name must fit {NAME.pattern}: small letters, digits and hyphens, 40 at most"
        raise Invalid(message, code="invalid_request", param="name")
    engine = sa.create_engine(admin_url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("LOCK TABLE tenant IN SHARE ROW EXCLUSIVE MODE"))
            if connection.execute(sa.select(tenant.c.id).where(tenant.c.id == _id(name))).first():
                raise Conflict(f"there is a tenant {name} already", code="name_taken", param="name")
            keep(_tenant(connection, name, pepper))
    finally:
        engine.dispose()
    return _id(name)


def _tenant(connection: sa.Connection, name: str, pepper: bytes) -> str:
    """Its first key."""
    material: KeyMaterial = new_key(pepper)
    connection.execute(tenant.insert().values(id=_id(name), name=name))
    values = {"id": material.id, "tenant_id": _id(name), "scopes": ALL_SCOPES, "mac": material.mac}
    connection.execute(
        api_key.insert().values(**values, name="first admin key", prefix=material.prefix, seal=key_seal(values, pepper))
    )
    return material.text


def _id(name: str) -> str:
    return f"tenant_{name}"
