"""The database's history: raw SQL per revision, run by Alembic under the admin login."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

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


def upgrade(admin_url: str, revision: str = "head") -> None:
    """Bring the database behind `admin_url` to a revision; a no-op when it is there already."""
    engine = sa.create_engine(admin_url)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(:k)"), {"k": _LOCK})
            connection.commit()
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:k)"), {"k": _LOCK})
            connection.commit()
    finally:
        engine.dispose()
