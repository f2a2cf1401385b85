"""Log-in by API key, and log-out."""

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials

from api.auth import authenticated
from api.dashboard.render import page
from api.dashboard.session import (
    COOKIE,
    PATH,
    Posted,
    Visit,
    end,
    form_token,
    new_session,
    read_cookie,
    read_form,
    require_token,
    safe_next,
    set_cookie,
)
from api.deps import Service
from api.errors import HttpError

router = APIRouter()
BEFORE = "tacit_login"
"""Cookie of the log-in form; a name of its own, so that showing the form to someone ends no session."""
PAUSE = 1.0
"""Seconds that a wrong key costs; wrong keys wait for each other, right ones for nobody."""
MOST_WAITING = 20


@router.get("/login")
def form(request: Request, service: Service, next: str = "", ended: bool = False, unsent: bool = False) -> Response:
    """The log-in form."""
    return _form(request, service, next=next, ended=ended, unsent=unsent)


@router.post("/login")
async def log_in(request: Request, service: Service) -> Response:
    """A session for a key that is alive."""
    fields = await read_form(request)
    require_token(fields, read_cookie(request, service, BEFORE), service)
    credentials = HTTPAuthorizationCredentials(scheme="Bearer", credentials=fields.get("key", "").strip())
    target = fields.get("next", "")
    try:
        caller = await to_thread.run_sync(authenticated, request, service, credentials)
    except HttpError as error:
        if error.status_code == 429:
            raise
        await _slow_down(request.app.state.wrong_keys)
        return _form(request, service, next=target, error=error.message, status=401)
    response = RedirectResponse(safe_next(target), 303)
    set_cookie(request, response, service, new_session(caller.key_id))
    response.delete_cookie(BEFORE, path=PATH)
    return response


@router.post("/logout")
def log_out(request: Request, visit: Visit, posted: Posted) -> Response:
    """End the session here and in the browser."""
    end(request.app.state.ended, visit.session)
    response = RedirectResponse(f"{PATH}/login", 303)
    response.delete_cookie(COOKIE, path=PATH)
    return response


async def _slow_down(turn: anyio.Semaphore) -> None:
    if turn.statistics().tasks_waiting >= MOST_WAITING:
        raise HttpError(429, "too_many_attempts", "too many wrong keys at once; try again in a minute")
    async with turn:
        await anyio.sleep(PAUSE)


def _form(
    request: Request,
    service: Service,
    *,
    next: str,
    error: str = "",
    ended: bool = False,
    unsent: bool = False,
    status: int = 200,
) -> Response:
    session = new_session()
    response = page(
        request,
        "login.html",
        status=status,
        token=form_token(session, service),
        next=safe_next(next),
        error=error,
        ended=ended,
        unsent=unsent,
    )
    set_cookie(request, response, service, session, BEFORE)
    return response
