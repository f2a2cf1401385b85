"""Which methods train which base models, tried on made-up tokens; which weights a job was planned for."""

from migrations import sqlfiles

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    sqlfiles.run("0019")
