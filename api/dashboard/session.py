"""Who looks at the dashboard: a signed cookie that names a key (never the key itself), and forms that are ours.

The key is looked up for every page, so that a revoked or expired key ends its sessions at once.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Request, Response

from api.auth import Caller, find_caller, require_patience
from api.dashboard.waiting import count
from api.deps import Resources, Service
from api.errors import HttpError
from domain.kit.settings import secret_bytes
from domain.kit.tables import api_key

PATH = "/dashboard"
COOKIE = "tacit_session"
LIFETIME = 8 * 3600
"""Seconds from log-in, however busy the session is."""
MOST_ENDED = 1000
"""Sessions of one key that are remembered each by itself after they logged out."""


class LoggedOut(Exception):
    """There is no session; `ended` where there was one and its key died."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended


@dataclass(frozen=True)
class Session:
    """What the cookie says. `key_id` is empty before log-in."""

    id: str
    key_id: str
    expires: int


@dataclass(frozen=True)
class Visitor:
    """A logged-in caller, and the token that its forms must carry."""

    caller: Caller
    session: Session
    token: str
    waiting: int
    """Jobs and files that wait for a steward's answer."""

    def may(self, *scopes: str) -> bool:
        return any(self.caller.may(scope) for scope in scopes)


def new_session(key_id: str = "") -> Session:
    return Session(secrets.token_hex(16), key_id, int(time.time()) + LIFETIME)


def set_cookie(request: Request, response: Response, service: Resources, session: Session, name: str = COOKIE) -> None:
    """Send the session to the browser; over TLS it never goes over anything else."""
    response.set_cookie(
        name,
        _sealed(session, service),
        max_age=LIFETIME,
        path=PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def read_cookie(request: Request, service: Resources, name: str = COOKIE) -> Session | None:
    """The session that a cookie holds, if we made it and it has not run out."""
    parts = request.cookies.get(name, "").split(".")
    if len(parts) != 4 or not (parts[2].isascii() and parts[2].isdecimal() and len(parts[2]) < 16):
        return None
    session = Session(parts[0], parts[1], int(parts[2]))
    genuine = hmac.compare_digest(_sealed(session, service).encode(), ".".join(parts).encode())
    return session if genuine and session.expires > time.time() else None


def form_token(session: Session, service: Resources) -> str:
    """What every form of a session carries, and no other site can know."""
    return _mac(service, f"form.{session.id}.{session.key_id}")


def require_token(form: Mapping[str, str], session: Session | None, service: Resources) -> None:
    """Raises HttpError unless the form was made for this session."""
    sent = form.get("token", "")
    if session is None or not hmac.compare_digest(sent.encode(), form_token(session, service).encode()):
        raise HttpError(403, "form_expired", "this form is not from your session; load its page again and resend it")


def visitor(request: Request, service: Service) -> Visitor:
    """The caller behind the cookie. Raises LoggedOut."""
    session = read_cookie(request, service)
    if session is None or not session.key_id or is_over(request.app.state.ended, session):
        raise LoggedOut(ended=False)
    try:
        caller = find_caller(service, api_key.c.id == session.key_id)
    except HttpError:
        raise LoggedOut(ended=True) from None
    require_patience(service, caller)
    request.scope["caller"] = caller  # for the audit log
    found = Visitor(caller, session, form_token(session, service), count(service, caller))
    request.state.visitor = found  # for the pages of errors
    return found


Visit = Annotated[Visitor, Depends(visitor)]


async def read_form(request: Request) -> dict[str, str]:
    """The text fields of a form; the last of several with one name."""
    async with request.form(max_files=0) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


async def posted(request: Request, visit: Visit, service: Service) -> dict[str, str]:
    """The fields of a form that this session sent. Raises HttpError for any other."""
    form = await read_form(request)
    request.state.sent = form  # for the way back from an error
    require_token(form, visit.session, service)
    return form


Posted = Annotated[dict[str, str], Depends(posted)]


def end(ended: dict[str, dict[str, int]], session: Session) -> None:
    """Remember, under its key, a session that logged out, until its cookie has run out by itself."""
    now = time.time()
    mine = {id: expires for id, expires in ended.get(session.key_id, {}).items() if expires > now}
    mine[session.id] = session.expires
    # Of a key that logs out without end, all sessions that have begun are over; they are under no id.
    ended[session.key_id] = {"": max(mine.values())} if len(mine) > MOST_ENDED else mine


def is_over(ended: dict[str, dict[str, int]], session: Session) -> bool:
    """Whether the session logged out."""
    mine = ended.get(session.key_id, {})
    return session.id in mine or session.expires <= mine.get("", 0)


def login_url(page: str, *, ended: bool, unsent: bool) -> str:
    """The log-in page that leads to another one afterwards. unsent: a form came that nothing was done about."""
    asked = {"next": page, "ended": "1" if ended else "", "unsent": "1" if unsent else ""}
    return f"{PATH}/login?" + urlencode({name: value for name, value in asked.items() if value})


def safe_next(target: str) -> str:
    """Where to go after log-in: a page of the dashboard and nothing else, whatever a link says."""
    inside = target.startswith(f"{PATH}/") and "//" not in target and "\\" not in target and target.isprintable()
    return target if inside and target.isascii() else f"{PATH}/budgets"


def _sealed(session: Session, service: Resources) -> str:
    text = f"{session.id}.{session.key_id}.{session.expires}"
    return f"{text}.{_mac(service, f'session.{text}')}"


def _mac(service: Resources, text: str) -> str:
    """Under a key of its own, made from the pepper: neither gives away anything about the other."""
    own = hmac.digest(secret_bytes(service.settings.key_pepper), b"tacit dashboard", "sha256")
    return hmac.new(own, text.encode(), hashlib.sha256).hexdigest()
