"""Limits, freezing, corrections, re-pricing, ages, other mechanisms' curves, fingerprints of records and users."""

from migrations import sqlfiles

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    sqlfiles.run("0002")
