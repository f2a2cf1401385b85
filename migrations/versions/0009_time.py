"""How long workers have had a job in hand."""

from migrations import sqlfiles

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    sqlfiles.run("0009")
