"""Placeholder for a revision of another branch."""

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    pass
