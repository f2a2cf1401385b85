"""A stolen service password moves nothing: names that cannot be shadowed, lists of one shape, orders of each budget."""

from migrations import sqlfiles

revision = "0015"
down_revision = "0012"


def upgrade() -> None:
    sqlfiles.run("0015")
