"""A job may release text that was sampled from its model."""

from migrations import sqlfiles

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    sqlfiles.run("0026")
