"""The audit log: who changed what, and who took rows or adapters."""

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response

from api.audit import endpoints as audit_api
from api.auth import allowed
from api.dashboard.render import page
from api.dashboard.session import Visit
from api.deps import Transaction
from api.pages import After
from domain.kit.tables import api_key

router = APIRouter(prefix="/audit")
_auditor = allowed("auditor")
ROWS = 50


@router.get("")
def index(request: Request, visit: Visit, connection: Transaction, after: After = None) -> Response:
    """The tenant's log, newest first."""
    _auditor(visit.caller)
    found = audit_api.index(visit.caller, connection, after=after, limit=ROWS)
    named = sa.select(api_key.c.id, api_key.c.name).where(
        api_key.c.tenant_id == visit.caller.tenant_id, api_key.c.id.in_({row.key for row in found.data})
    )
    names = {row.id: row.name for row in connection.execute(named)} if visit.may("admin") else {}  # who may list keys
    return page(request, "audit.html", found=found, names=names)
