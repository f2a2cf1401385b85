"""What the migrations add up to, written down: `migrations/schema.sql` to be read, `ledger/manifest.json` to be checked.

`python -m tests.regenerate`, or `make schema`, after every change of a migration.
"""

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

import sqlalchemy as sa

from cli.embedded import postgres
from ledger.guard import read_manifest
from migrations import upgrade
from tests.conftest import SUPERUSER_PASSWORD, Databases

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "migrations" / "schema.sql"
MANIFEST = ROOT / "ledger" / "manifest.json"
MAJOR = 18
"""Of the Postgres that schema.sql is printed by: others print the same schema in other words."""
HEAD = f"""\
-- The schema of a database of this version, as Postgres {MAJOR} prints what all migrations leave behind: to read, and to see in
-- a review what a migration changes. No database is made from it. Written by `make schema`; never edited.
-- Not in it: roles and the rights on the database itself (sql/roles.sql), and the rows that migrations put in.
SET ROLE tacit_owner;
SET check_function_bodies = false;
SELECT pg_catalog.set_config('search_path', '', false);
"""
_HEADINGS = re.compile(r"^--\n-- .*\n--\n", re.MULTILINE)
_SESSION = re.compile(
    r"^(SET|SELECT pg_catalog\.set_config|\\restrict|\\unrestrict|-- Dumped (from|by)) ?.*\n", re.MULTILINE
)
_BETWEEN = re.compile(r"\n\n(?=(GRANT|REVOKE|CREATE TRIGGER|CREATE (UNIQUE )?INDEX) )")
"""Statements of a line each stand together."""


def schema(url: str) -> str:
    """The schema of a database in pg_dump's order, by kind and name, without what depends on when and where it was made."""
    command = [str(postgres.programs()[MAJOR] / "pg_dump"), "--schema-only", "--no-owner", "--dbname", _plain(url)]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True, env=postgres.ENVIRONMENT).stdout
    body = _SESSION.sub("", _HEADINGS.sub("", dumped))
    return HEAD + "\n" + _BETWEEN.sub("\n", re.sub(r"\n{3,}", "\n\n", body)).strip() + "\n"


def manifest(url: str) -> str:
    """What ledger.guard compares a database with."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return json.dumps(read_manifest(connection), indent=1, sort_keys=True) + "\n"


def _plain(url: str) -> str:
    return url.replace("+psycopg", "")


def main() -> None:
    """Both files, from the migrations on a server that lives as long as this takes."""
    argparse.ArgumentParser(prog="python -m tests.regenerate", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="tacit-schema-") as folder:
        Path(folder).chmod(0o711)
        server = postgres.start(
            Path(folder) / "postgres", password=SUPERUSER_PASSWORD, log=Path(folder) / "log", options=["fsync=off"]
        )
        try:
            made = Databases(server).empty()
            upgrade(made.admin_url)
            SCHEMA.write_text(schema(made.admin_url), encoding="utf-8")
            MANIFEST.write_text(manifest(made.admin_url), encoding="utf-8")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
