"""What memory a worker has, beside what it measured."""

from migrations import sqlfiles

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    sqlfiles.run("0021")
