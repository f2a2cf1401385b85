"""Which methods train which base models, tried on made-up tokens."""

from migrations import sqlfiles

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    sqlfiles.run("0019")
