"""Times of webhooks and of their deliveries are times that every reader can read."""

from migrations import sqlfiles

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    sqlfiles.run("0031")
