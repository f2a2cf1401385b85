"""Which login works for which silo: a row each, which the operator's login alone writes."""

from collections.abc import Mapping

import sqlalchemy as sa

from migrations import RolesMissing

_NOT_WORKERS = sa.text(
    """
    SELECT login FROM unnest(CAST(:logins AS text[])) AS login WHERE NOT EXISTS (
      SELECT FROM pg_roles WHERE rolname = login AND pg_has_role(oid, 'tacit_worker', 'MEMBER')
        AND NOT pg_has_role(oid, 'tacit_api', 'MEMBER'))
    """
)
_BIND = sa.text(
    "INSERT INTO ledger.silo_login (login, silo) VALUES (:login, :silo)"
    " ON CONFLICT (login) DO UPDATE SET silo = excluded.silo WHERE ledger.silo_login.silo <> excluded.silo"
)
_BOUND = sa.text("SELECT silo FROM ledger.silo_login WHERE login = :login")


class BoundToASilo(ValueError):
    """The login of the workers that work for no silo works for one."""


def bind(admin_url: str, logins: Mapping[str, str], of_none: str) -> None:
    """From now on each silo's login works on its silo's jobs and no others. A binding that is not named stays: a login
    that lost its own would work on everybody else's jobs.

    logins: by silo. of_none: the login of the other workers. Raises RolesMissing or BoundToASilo.
    """
    engine = sa.create_engine(admin_url)
    try:
        with engine.begin() as connection:
            if lack := connection.execute(_NOT_WORKERS, {"logins": list(logins.values())}).scalars().all():
                raise RolesMissing(f"{', '.join(lack)} must be a member of tacit_worker and not of tacit_api")
            if silo := connection.execute(_BOUND, {"login": of_none}).scalar_one_or_none():
                raise BoundToASilo(f"the login {of_none} works for the silo {silo}; take another one for the workers")
            for name, login in logins.items():
                connection.execute(_BIND, {"login": login, "silo": name})
    finally:
        engine.dispose()
