"""A job may ask that its worker audits the training that it will run."""

from migrations import sqlfiles

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    sqlfiles.run("0030")
