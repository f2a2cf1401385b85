"""The database's history: raw SQL per revision, run by Alembic under the admin login."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from migrations.roles import OWNER, missing

_FOLDER = Path(__file__).parent
_LOCK = 0x7AC17  # one migration at a time, whichever process starts it


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return config


def head() -> str:
    """The newest revision that this installation knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def revisions() -> list[str]:
    """Every revision, oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


class RolesMissing(RuntimeError):
    """The server's administrator has not made the roles yet, or only some of them; the message says what lacks."""


def found(admin_url: str) -> list[str]:
    """What upgrades found in rows of earlier revisions and could not believe; the budgets concerned are frozen."""
    engine = sa.create_engine(admin_url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT budget_id, what FROM ledger.finding ORDER BY id")).all()
    finally:
        engine.dispose()
    return [row.what if row.budget_id is None else f"budget {row.budget_id} is frozen: {row.what}" for row in rows]


def upgrade(admin_url: str, revision: str = "head") -> None:
    """Bring the database behind `admin_url` to a revision; a no-op when it is there already.

    The login is a member of tacit_owner (roles.py), and works as it: what a migration makes belongs to nobody's login.
    Raises RolesMissing.
    """
    engine = sa.create_engine(admin_url)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(:k)"), {"k": _LOCK})
            if lacks := missing(connection):
                raise RolesMissing("; ".join(lacks))
            connection.exec_driver_sql(f"SET ROLE {OWNER}")
            connection.commit()
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:k)"), {"k": _LOCK})
            connection.commit()
    finally:
        engine.dispose()
