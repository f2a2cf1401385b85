"""Federated jobs: invitations, silos, their rounds, and logins that work for one silo alone."""

from migrations import sqlfiles

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    sqlfiles.run("0022")
