"""What a measurement of a model was made with, where that is not its method's defaults."""

from migrations import sqlfiles

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    sqlfiles.run("0027")
