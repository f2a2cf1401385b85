"""API keys as they go over the wire."""

from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field

from api.fields import Body, Name, Project

Scope = Literal["steward", "analyst", "auditor", "admin"]


class NewKey(Body):
    """A request for a key."""

    name: Name = Field(description="of the person or the service whose key it is: others see it beside what it does")
    scopes: list[Scope] = Field(min_length=1, max_length=4)
    project: Project | None = Field(default=None, description="grants to the project are this key's too; never changes")
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)


class Rotation(Body):
    """How long the secret before goes on working beside the new one."""

    overlap_hours: int = Field(default=24, ge=0, le=720)


class ApiKey(BaseModel):
    """A key without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    prefix: str | None = Field(description="how the secret begins; to administrators")
    scopes: list[Scope]
    project: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    previous_until: int | None = Field(description="until when the secret before the last rotation still works")


class CreatedKey(ApiKey):
    """A new key, with its secret: shown this once and not kept."""

    key: str


def key_of(row: sa.Row[Any], *, with_prefix: bool = True) -> ApiKey:
    """A row of api_key."""
    return ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix if with_prefix else None,
        scopes=row.scopes,
        project=row.project,
        created_at=int(row.created_at.timestamp()),
        expires_at=None if row.expires_at is None else int(row.expires_at.timestamp()),
        revoked_at=None if row.revoked_at is None else int(row.revoked_at.timestamp()),
        previous_until=None if row.previous_until is None else int(row.previous_until.timestamp()),
    )
