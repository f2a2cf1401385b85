"""What workers measured about the base models, for estimates."""

from migrations import sqlfiles

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    sqlfiles.run("0005")
