"""What cannot be believed in rows of earlier revisions: named, kept as evidence, its budget frozen."""

from migrations import sqlfiles

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    sqlfiles.run("0014")
