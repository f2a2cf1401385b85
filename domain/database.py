"""One engine a process, made by whoever starts it; never at import."""

import sqlalchemy as sa


def make_engine(url: str, pool_size: int = 5) -> sa.Engine:
    """A pooled engine that checks a connection before lending it, so that a restarted database is survived.

    At most twice `pool_size` connections, made when they are needed and then kept: to open one costs the database and
    this process more than most statements.
    """
    return sa.create_engine(
        url,
        pool_size=2 * pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text goes to the log, and values may be somebody's
        connect_args={
            "connect_timeout": 10,
            "options": "-c lock_timeout=30s -c idle_in_transaction_session_timeout=60s",
        },
    )


class UnsafeLogin(RuntimeError):
    """A service login could overrule the ledger, so the service does not start."""


def require_safe_login(connection: sa.Connection) -> None:
    """Refuse a login that is superuser, owns the ledger or may become someone who does."""
    strong = connection.execute(
        sa.text(
            """
            SELECT session_user FROM pg_roles
            WHERE (rolsuper OR rolcreaterole OR rolbypassrls
                   OR oid IN (SELECT relowner FROM pg_class WHERE relnamespace = 'ledger'::regnamespace)
                   OR oid = (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger'))
              AND pg_has_role(session_user, oid, 'MEMBER')
            LIMIT 1
            """
        )
    ).scalar_one_or_none()
    if strong is not None:
        raise UnsafeLogin(
            f"the database login {strong!r} may overrule the ledger (superuser, owner or member of one); "
            "use tacit_api for the API and tacit_worker for the worker in TACIT_DATABASE_URL"
        )
