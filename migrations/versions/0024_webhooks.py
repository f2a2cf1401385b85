"""Webhooks, and what is told to them; the API's login may read which revision this is."""

from migrations import sqlfiles

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    sqlfiles.run("0024")
