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
            # What the ledger is written under, whatever the server's default.
            "options": "-c default_transaction_isolation=read\\ committed -c lock_timeout=30s "
            "-c idle_in_transaction_session_timeout=60s",
        },
    )


class UnsafeLogin(RuntimeError):
    """A service login could overrule the ledger, so the service does not start."""


def require_safe_login(connection: sa.Connection) -> None:
    """Refuse a login that may do more than a service: one that is superuser, owns the ledger, makes roles or databases,
    copies the server or reads its files, or may become one that does; or one that may make anything here."""
    strong = connection.execute(_STRONG).scalar_one_or_none()
    if strong is not None:
        raise UnsafeLogin(
            f"the database login {strong!r} may overrule the ledger (superuser, owner, maker of roles or tables, or a "
            "member of one); use a member of tacit_api for the API and one of tacit_worker for the worker in "
            "TACIT_DATABASE_URL"
        )


def require_silo_login(connection: sa.Connection, silo: str | None) -> None:
    """Refuse a worker's login that is not bound to the worker's silo, or that is bound to one where it has none: the
    database lets it work on nothing else than the jobs of its own."""
    login, bound = connection.execute(_BOUND).one()
    if bound != silo:
        is_bound = "bound to no silo" if bound is None else f"bound to the silo {bound}"
        wanted = "TACIT_SILO is not set" if silo is None else f"TACIT_SILO is {silo}"
        raise UnsafeLogin(
            f"the database login {login!r} is {is_bound}, and {wanted}; name the login's silo in TACIT_SILO, or take "
            "the URL that the operator's TACIT_SILO_DATABASE_URLS has for it (tacit migrate binds it)"
        )


_BOUND = sa.text("SELECT session_user, (SELECT silo FROM ledger.silo_login WHERE login = session_user)")
_STRONG = sa.text(
    """
    SELECT session_user WHERE EXISTS (
        SELECT FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER') AND (
            rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolname ~ '^pg_'
            OR oid IN (SELECT relowner FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                       WHERE nspname IN ('ledger', 'public'))
            OR oid IN (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger')
            OR oid IN (SELECT proowner FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
                       WHERE nspname IN ('ledger', 'public'))
            OR oid IN (SELECT datdba FROM pg_database WHERE datname = current_database())))
      OR has_database_privilege(session_user, current_database(), 'CREATE')
      OR has_database_privilege(session_user, current_database(), 'TEMPORARY')
      OR EXISTS (SELECT FROM pg_namespace WHERE has_schema_privilege(session_user, oid, 'CREATE'))
      OR EXISTS (SELECT FROM pg_parameter_acl WHERE has_parameter_privilege(session_user, parname, 'SET'))
    """
)
