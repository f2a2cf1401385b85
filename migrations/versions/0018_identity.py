"""Who is in the data is recognised by each text and by what ids mean; what resembles another budget's is asked
about."""

from migrations import sqlfiles

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    sqlfiles.run("0018")
