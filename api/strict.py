"""JSON bodies within bounds, for every route: what Python would take beyond RFC 8259 never reaches one."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import HttpError, problem
from domain.kit import strict_json

DEEPEST = 32
"""Arrays and objects within each other."""


class StrictJson:
    """Reads a JSON body whole (its size is bounded outside of this), refuses what is out of bounds, hands it on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if "content-type" not in Headers(scope=scope) and _is_api(scope):
            MutableHeaders(scope=scope)["content-type"] = "application/json"  # what all of its bodies are but a form's
        if not _is_json(Headers(scope=scope).get("content-type", "")):
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        try:
            body = await request.body()
            _require_bounds(body)
        except HttpError as error:
            refusal = problem(request, error.status_code, error.code, error.message, headers=error.headers)
            return await refusal(scope, receive, send)
        except ClientDisconnect:
            return None
        handed_on = False

        async def receive_again() -> Message:
            nonlocal handed_on
            if handed_on:
                return await receive()
            handed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await self.app(scope, receive_again, send)


def _is_api(scope: Scope) -> bool:
    """Whether a body can only be JSON: a browser's form never comes here, nor a file."""
    return scope["method"] == "POST" and scope["path"].startswith("/v1/") and scope["path"] != "/v1/files"


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _require_bounds(body: bytes) -> None:
    """Raises HttpError. An empty body is no JSON, and some clients send one with this type."""
    try:
        if body:
            strict_json.require_depth(strict_json.loads(body.decode("utf-8")), DEEPEST)
    except strict_json.UnusableJson as error:
        raise HttpError(400, "invalid_request", f"the body is not usable JSON: {error}") from None
    except RecursionError:
        raise HttpError(400, "invalid_request", "the body is not usable JSON: it is nested too deeply") from None
    except ValueError:
        raise HttpError(400, "invalid_request", "the body is not valid JSON") from None
