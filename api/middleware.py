"""What every request passes: an id, a limit on its body, and headers that keep browsers from guessing."""

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import HttpError, internal_error, problem

JSON_LIMIT = 2**20
"""Bytes of a request body outside uploads."""
FORM_OVERHEAD = 2**20
"""Bytes that an upload may have beside its file: the other fields and the boundaries."""
UPLOADS = ("/v1/files", "/dashboard/files")
"""Where files are posted to."""

_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_OWN_PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Envelope:
    """Gives each request an id and each response its id and the security headers, the last resort's included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["request_id"] = f"req_{secrets.token_hex(16)}"
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = scope["request_id"]
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                dashboard = scope["path"].startswith("/dashboard/")
                # A statement has a stricter one of its own.
                headers.setdefault("content-security-policy", _OWN_PAGES if dashboard else _NOTHING)
                if scope["scheme"] == "https":
                    headers["strict-transport-security"] = "max-age=31536000"
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            if not started:
                await internal_error(Request(scope))(scope, receive, send_with_headers)
            raise  # to the server's log


class BodyLimit:
    """Refuses a body that is too large: at once by its declared length, otherwise when the limit is passed."""

    def __init__(self, app: ASGIApp, upload_limit: int) -> None:
        self.app = app
        self.upload_limit = upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        upload = scope["method"] == "POST" and scope["path"] in UPLOADS
        limit = self.upload_limit + FORM_OVERHEAD if upload else JSON_LIMIT
        declared = Headers(scope=scope).get("content-length", "")
        if len(declared) > 18 or (declared.isdecimal() and int(declared) > limit):
            error = too_large(limit)
            response = problem(Request(scope), error.status_code, error.code, error.message, headers=error.headers)
            return await response(scope, receive, send)
        seen = 0

        async def receive_limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise too_large(limit)
            return message

        await self.app(scope, receive_limited, send)


def too_large(limit: int) -> HttpError:
    """413; the connection is closed, since the rest of the body is not read."""
    return HttpError(
        413, "request_too_large", f"the request body is larger than {limit} bytes", headers={"connection": "close"}
    )
