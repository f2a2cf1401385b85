"""Errors: RFC 9457 members and OpenAI's `error` object in one body. No answer repeats what was sent."""

import errno
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from domain.kit.refusals import Conflict, Forbidden, Invalid, NotFound, OverBudget, Refusal, TooMany
from domain.storage.blobs import NotMounted
from dpcore.terms.strict import expected
from ledger.budgets import UnreadableBudget
from ledger.errors import BudgetFrozen, LedgerIncomplete

logger = logging.getLogger(__name__)
DATABASE_BACK = 5
"""Seconds after which a client asks again while the database is away: a failover takes some."""
_PASSING_CLASSES = ("08", "40", "53", "57", "58")
"""SQLSTATE: connection, rolled back by the server, resources, operator (shutdown, cancelled), system."""
_PASSING_STATES = {
    "25006",  # read only: a replica that is not the primary yet, or one that was
    "25P03",  # idle in a transaction for too long
    "55P03",  # a lock that did not come in time
}

_STATUS: dict[type[Refusal], int] = {
    Invalid: 400,
    Forbidden: 403,
    OverBudget: 403,
    NotFound: 404,
    Conflict: 409,
    TooMany: 429,
}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_TYPES_OF_VALUES = {"int", "float", "str", "bool"}
_RETRY_HELPS = {408, 429, 503}


class HttpError(HTTPException):
    """A refusal that only HTTP knows: a key, a scope, a header."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.message = message
        self.code = code
        self.param = param


class ErrorObject(BaseModel):
    """What the `openai` SDKs read."""

    message: str
    type: str
    param: str | None
    code: str


class ProblemDetails(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="a URN made of the code")
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[dict[str, Any]] = Field(default_factory=list, description="one for each wrong field or line")
    error: ErrorObject


def problem(
    request: Request,
    status: int,
    code: str,
    message: str,
    *,
    param: str | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    """The one error body. Final refusals tell clients not to try again."""
    body = {
        "type": f"urn:tacit:problem:{code.replace('_', '-')}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": message,
        "instance": request.url.path,
        "request_id": request.scope.get("request_id", ""),
        "errors": list(errors),
        "error": {
            "message": message,
            "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
            "param": param,
            "code": code,
        },
        **extra,
    }
    final = {} if status >= 500 or status in _RETRY_HELPS else {"x-should-retry": "false"}
    return JSONResponse(body, status, headers={**final, **(headers or {})}, media_type="application/problem+json")


def status_of(error: Refusal | HttpError) -> int:
    """What a refusal is over HTTP."""
    if isinstance(error, HttpError):
        return error.status_code
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def install(app: FastAPI) -> None:
    """Answer every exception with a problem."""

    @app.exception_handler(Refusal)
    def refusal(request: Request, error: Refusal) -> JSONResponse:
        return problem(
            request,
            status_of(error),
            error.code,
            error.message,
            param=error.param,
            errors=error.errors,
            headers={"x-should-retry": "false"},  # also where the status alone would say otherwise
            **error.extra,
        )

    @app.exception_handler(HttpError)
    def api_error(request: Request, error: HttpError) -> JSONResponse:
        return problem(request, error.status_code, error.code, error.message, param=error.param, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        details = error.errors()
        if any(d["loc"][0] == "path" for d in details):
            return problem(request, 404, "not_found", "no such thing: the id in the path is not one of ours")
        if any(tuple(d["loc"]) == ("body",) and d["type"] != "value_error" for d in details) and not _says_json(
            request
        ):
            message = "the body is not taken for JSON: send it with the header `content-type: application/json`"
            return problem(request, 415, "unsupported_media_type", message)
        said: dict[str | None, list[Mapping[str, Any]]] = {}
        for detail in details:
            said.setdefault(_field(detail), []).append(detail)
        words = {param: _words(of_one) for param, of_one in said.items()}
        param, message = next(iter(words.items()))
        errors = [{"param": name, "message": what} for name, what in words.items()]
        message = f"{param}: {message}" if param else message
        return problem(request, 400, "invalid_request", message, param=param, errors=errors)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        phrase, words = HTTPStatus(error.status_code).phrase, str(error.detail)
        if error.status_code == 405:
            words = f"{phrase}: {request.method} is not offered here"
        elif error.status_code == 404:
            words += _meant(request)
        return problem(request, error.status_code, phrase.lower().replace(" ", "_"), words, headers=error.headers)

    @app.exception_handler(LedgerIncomplete)
    def incomplete(request: Request, error: LedgerIncomplete) -> JSONResponse:
        message = (
            "a restore of the database has lost a budget, so that its people cannot be told from new ones: no budget "
            "is opened and no private file taken in until the operator has looked (tacit ledger accept-loss)"
        )
        return problem(request, 503, "ledger_incomplete", message, headers={"x-should-retry": "false"})

    @app.exception_handler(UnreadableBudget)
    @app.exception_handler(BudgetFrozen)
    def frozen(request: Request, error: BudgetFrozen | UnreadableBudget) -> JSONResponse:
        return problem(request, 403, "budget_frozen", "the budget is frozen; its steward can say why")

    @app.exception_handler(sa.exc.DBAPIError)
    @app.exception_handler(sa.exc.TimeoutError)
    def database(request: Request, error: sa.exc.DBAPIError | sa.exc.TimeoutError) -> JSONResponse:
        if not _passes(error):
            raise error
        logger.warning("the database is away or busy: %s", _state_of(error) or type(error).__name__)
        message = "the database is away or busy for a moment; nothing is known to have been done: ask again"
        return problem(request, 503, "database_unavailable", message, headers={"retry-after": str(DATABASE_BACK)})

    @app.exception_handler(NotMounted)
    def not_mounted(request: Request, error: NotMounted) -> JSONResponse:
        logger.error("%s", error)
        message = (
            "the file lies in a place that the service does not open any more, and is not lost: tell the operator "
            "(TACIT_SILOS, TACIT_EXCHANGE)"
        )
        return problem(request, 503, "place_not_served", message, headers={"x-should-retry": "false"})

    @app.exception_handler(OSError)
    def no_room(request: Request, error: OSError) -> JSONResponse:
        if error.errno != errno.ENOSPC:
            raise error
        logger.error("a disk is full: %s", error.filename)
        message = "the service has no room on its disk; tell the operator"
        return problem(request, 507, "insufficient_storage", message, headers={"x-should-retry": "false"})

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> JSONResponse:
        return internal_error(request)


def _passes(error: sa.exc.DBAPIError | sa.exc.TimeoutError) -> bool:
    """Whether it is the database's trouble and no statement's: then the same request may go well in a moment."""
    if isinstance(error, sa.exc.TimeoutError) or error.connection_invalidated:
        return True
    state = _state_of(error)
    if state is None:  # no answer of a server: it could not be reached, or went away in the middle
        return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    return state[:2] in _PASSING_CLASSES or state in _PASSING_STATES


def _state_of(error: Exception) -> str | None:
    """What the server called it, as SQLSTATE."""
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state


def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _meant(request: Request) -> str:
    """What to change in a base URL that lacks its /v1, or has it twice."""
    path = request.url.path
    wanted = path.removeprefix("/v1") if path.startswith("/v1/v1/") else f"/v1{path}"
    scope = {**request.scope, "path": wanted}
    if not any(route.matches(scope)[0] is not Match.NONE for route in request.app.router.routes):
        return ""
    return ": the base URL of this API ends in /v1, once"


def internal_error(request: Request) -> JSONResponse:
    """Whatever it was, the log has its type and place."""
    message = "something went wrong on our side; tell the operator the request_id"
    return problem(request, 500, "internal_error", message)


def _field(detail: Mapping[str, Any]) -> str | None:
    """`body.privacy.epsilon` as a caller writes it: privacy.epsilon. Names of a union's members are left out."""
    if detail["type"] == "json_invalid":
        return None
    parts = [str(part) for part in detail["loc"][1:]]
    return ".".join(part for part in parts if part.isidentifier() and part not in _TYPES_OF_VALUES) or None


def _words(details: Sequence[Mapping[str, Any]]) -> str:
    """What is said of one field: the rule and never the value; an unknown field is told apart."""
    detail = details[0]
    if detail["type"] == "json_invalid":
        return "the body is not valid JSON"
    if detail["type"] == "extra_forbidden":
        return "unknown field; leave it out"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return expected(details)
