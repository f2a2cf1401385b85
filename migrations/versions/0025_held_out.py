"""Budgets that hold a share of their units out of all training."""

from migrations import sqlfiles

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    sqlfiles.run("0025")
