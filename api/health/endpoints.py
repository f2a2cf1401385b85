"""Whether the process lives, and whether it can do its work."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from domain.keeping.keeper import Word

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What works. Without its broker the service still takes jobs; workers find them a little later."""

    status: Literal["ok", "failed"]
    checks: dict[str, Word]


@router.get("/healthz")
def alive() -> Health:
    """Always ok while the process can answer."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness}})
def ready(request: Request, response: Response) -> Readiness:
    """Ledger whole and at this revision, blob store writable, room on the disks, broker reachable, witness told, keeper
    at work, a base model that can be used, as of a second ago at most. Reasons are in the log."""
    checks: dict[str, Word] = request.state.readiness()
    failed = "failed" in checks.values()
    response.status_code = 503 if failed else 200
    return Readiness(status="failed" if failed else "ok", checks=checks)
