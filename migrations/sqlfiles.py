"""Running a revision's SQL files as written: no bind parameters, no statement splitting."""

from pathlib import Path

from alembic import op

_FOLDER = Path(__file__).parent / "sql"


def run(revision: str) -> None:
    """Run every file of sql/<revision>/ in the order of their names, inside the migration's transaction."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    for file in sorted((_FOLDER / revision).glob("*.sql")):
        driver.execute(file.read_text())
