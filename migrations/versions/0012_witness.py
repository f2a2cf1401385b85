"""What the witness needs: the database's id, budgets that a restore lost, and when the keeper last did its work."""

from migrations import sqlfiles

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    sqlfiles.run("0012")
