"""Grants with sub-limits, approval by a steward, ages of reservations that never began."""

from migrations import sqlfiles

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    sqlfiles.run("0004")
