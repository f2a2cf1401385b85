"""A stolen service password moves nothing: names that cannot be shadowed, lists of one shape, orders of each budget."""

from migrations import sqlfiles

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    sqlfiles.run("0016")
