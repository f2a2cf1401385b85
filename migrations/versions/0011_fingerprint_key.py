"""Which key the fingerprints of records and users were made with."""

from migrations import sqlfiles

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    sqlfiles.run("0011")
