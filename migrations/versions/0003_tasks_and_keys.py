"""What a file trains; the wrapped keys that blobs are encrypted with."""

from migrations import sqlfiles

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    sqlfiles.run("0003")
