"""A job's teacher is a job of the same budget, whatever the service says."""

from migrations import sqlfiles

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    sqlfiles.run("0020")
