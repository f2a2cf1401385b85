"""What ties a file to its rows and its budget never changes, and is checked before a row is read."""

from migrations import sqlfiles

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    sqlfiles.run("0015")
