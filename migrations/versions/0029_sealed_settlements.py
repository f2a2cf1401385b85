"""A settlement's line commits to its exact time and its fence without showing them."""

from migrations import sqlfiles

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    sqlfiles.run("0029")
