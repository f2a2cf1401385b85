"""Pauses: a job that is held, with its reservation, until somebody resumes it."""

from migrations import sqlfiles

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    sqlfiles.run("0007")
