"""A price that does not read the ledger's history."""

from migrations import sqlfiles

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    sqlfiles.run("0006")
