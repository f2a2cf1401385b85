"""Which fingerprints a budget holds, counted and sealed in its chain; which phases of a charge are indivisible."""

from migrations import sqlfiles

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    sqlfiles.run("0013")
