"""What the check of an upload found, kept for its steward."""

from migrations import sqlfiles

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    sqlfiles.run("0017")
