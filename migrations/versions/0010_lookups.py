"""Indexes for what every submission and every poll looks up."""

from migrations import sqlfiles

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    sqlfiles.run("0010")
