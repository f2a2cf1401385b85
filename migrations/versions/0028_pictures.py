"""A kind of task whose records are pictures with labels."""

from migrations import sqlfiles

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    sqlfiles.run("0028")
