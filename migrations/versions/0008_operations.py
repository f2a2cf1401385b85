"""Rotation of keys, the audit log, retention."""

from migrations import sqlfiles

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    sqlfiles.run("0008")
