"""What only the server's superuser can do to a database, past every trigger: restores, and rows that nobody could write."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import sqlalchemy as sa

from cli.embedded import postgres
from tests.conftest import Database


def superuser_url(database: Database) -> str:
    """The one place that knows who the superuser is."""
    return database.superuser_url


@contextmanager
def past_triggers(database: Database) -> Iterator[sa.Connection]:
    """A transaction in which no trigger and no foreign key holds."""
    engine = sa.create_engine(superuser_url(database), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        yield connection


def rewind(database: Database, budget_id: str, seq: int) -> None:
    """A budget's chain as a backup had it that was taken after this entry. What it had spent is not put back."""
    with past_triggers(database) as connection:
        values = {"budget": budget_id, "seq": seq}
        connection.execute(sa.text("DELETE FROM ledger.entry WHERE budget_id = :budget AND seq > :seq"), values)
        connection.execute(
            sa.text(
                "UPDATE ledger.budget b SET head_seq = e.seq, head_hash = e.hash, frozen_reason = NULL FROM ledger.entry e"
                " WHERE b.id = :budget AND e.budget_id = b.id AND e.seq = :seq"
            ),
            values,
        )


def forget(database: Database, budget_id: str) -> None:
    """As a backup that was taken before the budget was opened."""
    with past_triggers(database) as connection:
        for table, column in (("entry", "budget_id"), ("budget", "id")):
            connection.execute(sa.text(f"DELETE FROM ledger.{table} WHERE {column} = :budget"), {"budget": budget_id})


def copied(database: Database, name: str) -> Database:
    """A copy of a database, from which whoever is connected is thrown out; on the same server, for the same logins."""
    others = sa.text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name")
    with _maintenance(database) as connection:
        connection.execute(others, {"name": database.name})
        _create(connection, name, f"TEMPLATE {database.name}")
    urls = {
        field.name: sa.make_url(getattr(database, field.name)).set(database=name).render_as_string(hide_password=False)
        for field in fields(database)
        if field.name.endswith("_url")
    }
    return replace(database, name=name, **urls)


def drop(database: Database) -> None:
    with _maintenance(database) as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")


def dump(database: Database, target: Path) -> Path:
    """`pg_dump -Fc` of a database; answers where it is."""
    _run("pg_dump", "--format=custom", "--file", str(target), "--dbname", _plain(superuser_url(database)))
    return target


def restore(database: Database, source: Path) -> None:
    """Put a dump in the place of a database, which may be in use: whoever is connected is thrown out."""
    drop(database)
    with _maintenance(database) as connection:
        _create(connection, database.name)
    _run("pg_restore", "--exit-on-error", "--dbname", _plain(superuser_url(database)), str(source))


def base_backup(database: Database, target: Path) -> None:
    """`pg_basebackup`: a physical copy of the whole server, as a replica had it."""
    _run("pg_basebackup", "--checkpoint=fast", "--pgdata", str(target), "--dbname", _plain(superuser_url(database)))


def _create(connection: sa.Connection, name: str, how: str = "") -> None:
    """A database with the owner and the rights that neither a template nor a dump brings."""
    connection.exec_driver_sql(f"CREATE DATABASE {name} {how} OWNER tacit_owner")
    connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {name} TO tacit_api, tacit_worker")


@contextmanager
def _maintenance(database: Database) -> Iterator[sa.Connection]:
    url = sa.make_url(superuser_url(database)).set(database="postgres")
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


def _run(program: str, *arguments: str) -> None:
    found = postgres.programs()
    subprocess.run([found[max(found)] / program, *arguments], check=True, capture_output=True)


def _plain(url: str) -> str:
    """As libpq takes it."""
    return url.replace("+psycopg", "")


def poison(database: Database, statement: str, budget_id: str) -> None:
    """A row of a budget as no trigger and no constraint would have it."""
    with past_triggers(database) as connection:
        constraints = "SELECT conname FROM pg_constraint WHERE conrelid = 'ledger.budget'::regclass AND contype = 'c'"
        for name in connection.exec_driver_sql(constraints).scalars().all():
            connection.exec_driver_sql(f'ALTER TABLE ledger.budget DROP CONSTRAINT "{name}"')
        for domain in ("units", "sums", "weights"):
            connection.exec_driver_sql(f"ALTER DOMAIN ledger.{domain} DROP CONSTRAINT IF EXISTS a_plain_list")
        connection.execute(sa.text(statement), {"budget": budget_id})
