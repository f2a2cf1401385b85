"""What the admin login does once: the first key."""

from collections.abc import Callable

import sqlalchemy as sa

from domain.access.keys import KeyMaterial, key_seal, new_key
from domain.kit.tables import api_key, tenant

ALL_SCOPES = ["steward", "analyst", "auditor", "admin"]


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
            material: KeyMaterial = new_key(pepper)
            connection.execute(tenant.insert().values(id="tenant_default", name="default"))
            values = {"id": material.id, "tenant_id": "tenant_default", "scopes": ALL_SCOPES, "mac": material.mac}
            connection.execute(
                api_key.insert().values(
                    **values, name="first admin key", prefix=material.prefix, seal=key_seal(values, pepper)
                )
            )
            keep(material.text)
            return material.text
    finally:
        engine.dispose()
