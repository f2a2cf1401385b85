"""What ties a file to its rows and its budget never changes, and is checked before a row is read."""

from migrations import sqlfiles

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    sqlfiles.run("0014")
