"""Grants by share, with an end and with a steer; what a job is for; budgets that can be renamed."""

from migrations import sqlfiles

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    sqlfiles.run("0023")
