"""Budgets, reservations and entries under their triggers; files, jobs and keys; the two service logins."""

from migrations import sqlfiles

revision = "0001"
down_revision = None


def upgrade() -> None:
    sqlfiles.run("0001")
