"""The audit log of a tenant, for its auditors and administrators."""

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.auth import Auditor
from api.deps import Transaction
from api.pages import After, Order, Page, PageSize, fetch, page
from domain.kit.tables import audit

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class AuditRow(BaseModel):
    """One request that changed something, or that handed out rows."""

    id: str
    object: str = "audit"
    created_at: int
    key: str = Field(description="the id of the key that asked")
    action: str = Field(description="method and route, with names in place of ids")
    target: str | None = Field(description="the ids in the path, or of what was made; null where it was refused")
    status: int = Field(description="of the answer")
    request_id: str


@router.get("")
def index(
    caller: Auditor, connection: Transaction, after: After = None, limit: PageSize = 20, order: Order = "desc"
) -> Page[AuditRow]:
    """Who did what, newest first. Rows are added and never changed or removed."""
    scoped = sa.select(audit).where(audit.c.tenant_id == caller.tenant_id)
    rows, more = fetch(connection, scoped, audit, after=after, limit=limit, order=order)
    return page([_shown(row) for row in rows], more)


def _shown(row: sa.Row[tuple[object, ...]]) -> AuditRow:
    return AuditRow(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        key=row.key_id,
        action=row.action,
        target=row.target,
        status=row.status,
        request_id=row.request_id,
    )
