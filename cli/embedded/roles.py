"""The roles in the embedded server: made by its superuser where they are not yet, who is then out of use."""

import psycopg

from cli.embedded.errors import StackError
from cli.embedded.postgres import SUPERUSER, Postgres
from cli.embedded.secrets import Secrets
from migrations.roles import Login, Logins, statements

ADMIN, API, WORKER = "tacit_admin", "tacit_api_login", "tacit_worker_login"


def establish(server: Postgres, known: Secrets, database: str) -> None:
    """The database with its roles and logins, as migrations/sql/roles.sql has them.

    Folders of earlier versions have `tacit_admin` as the superuser: it is renamed, and a plain one takes its place. All
    of it is one transaction, so that a start after one that was cut off begins again.
    """
    logins = Logins(
        Login(ADMIN, known.admin_password), Login(API, known.api_password), Login(WORKER, known.worker_password)
    )
    if _stand(server, logins, database):
        return
    with _superuser(server, known, "postgres") as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            connection.execute(f"CREATE DATABASE {database}".encode())
    with _superuser(server, known, database) as connection:
        own = f"ALTER ROLE {SUPERUSER} PASSWORD '{known.superuser_password}'"
        # Nobody but the superuser has any business in the databases beside ours.
        others = "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC"
        connection.execute(f"{statements(logins)};\n{own};\n{others}".encode())  # one message: one transaction


def _stand(server: Postgres, logins: Logins, database: str) -> bool:
    """Whether all three can log in and what the operator's login sees is as it should be."""
    import sqlalchemy as sa

    from migrations.roles import missing

    for login in (logins.admin, logins.api, logins.worker):
        engine = sa.create_engine(server.url(login.name, login.password, database), poolclass=sa.NullPool)
        try:
            with engine.connect() as connection:
                if login is logins.admin and missing(connection):
                    return False
        except sa.exc.OperationalError:
            return False
    return True


def _superuser(server: Postgres, known: Secrets, database: str) -> "psycopg.Connection[tuple[object, ...]]":
    """A connection of the superuser: under its name, or the one that it had in earlier versions."""
    for name, password in ((SUPERUSER, known.superuser_password), (ADMIN, known.admin_password)):
        try:
            url = server.url(name, password, database).replace("+psycopg", "")
            connection = psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            continue
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = session_user").fetchone()
        if row is not None and row[0]:
            return connection
        connection.close()
    raise StackError(
        "The database's superuser cannot log in with the passwords in secrets/stack.json. Restore that file from the "
        "backup that belongs to this data folder."
    )
