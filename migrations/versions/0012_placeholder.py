"""Holds the place of revision 0012."""

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Nothing."""
