"""The dashboard: pages over the API's own endpoints, so that they show and do what the API would and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from api import errors
from api.dashboard import (
    audit,
    budgets,
    compare,
    decisions,
    estimate,
    files,
    granting,
    inbox,
    invitations,
    jobs,
    keys,
    login,
    models,
    opening,
    questions,
    status,
    uploads,
    webhooks,
)
from api.dashboard.back import page_of_form
from api.dashboard.render import FILES, for_script, page
from api.dashboard.session import PATH, LoggedOut, login_url, read_form
from api.errors import HttpError
from api.metrics import FRAMEWORK


def make_dashboard() -> FastAPI:
    """An application of its own, mounted under /dashboard: its errors are pages, and /openapi.json leaves it out."""
    app = FastAPI(title="Tacit", openapi_url=None, docs_url=None, redoc_url=None, telemetry=FRAMEWORK)
    app.state.ended = {}  # sessions that logged out
    app.state.wrong_keys = anyio.Semaphore(1)
    # Pages whose form can be filled by their address.
    app.state.by_address = {f"{PATH}/estimate": estimate.FIELDS, f"{PATH}/budgets/new": opening.FIELDS}
    errors.install(app)
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _as_page(handler)

    @app.exception_handler(LoggedOut)
    async def logged_out(request: Request, error: LoggedOut) -> Response:
        if for_script(request):
            words = "your session has ended: log in, and choose the file again"
            return errors.problem(request, 401, "logged_out", words)
        if request.method == "GET":
            here = request.scope["path"] + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(login_url(here, ended=error.ended, unsent=False), 303)
        if request.scope["path"] == f"{PATH}/logout":
            return RedirectResponse(f"{PATH}/login", 303)
        try:
            sent = await read_form(request)
        except HTTPException:  # too large, or no form at all
            sent = {}
        return RedirectResponse(login_url(page_of_form(request, sent), ended=error.ended, unsent=True), 303)

    @app.get("/")
    def home() -> Response:
        return RedirectResponse(f"{PATH}/budgets", 303)

    @app.get("/static/{place:path}")
    def static(place: str) -> Response:
        if place not in FILES:
            raise HttpError(404, "not_found", "no such file")
        content, kind = FILES[place]
        return Response(content, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"})

    # `opening` before `budgets`, and `uploads` before `files`: their pages would be of the id "new".
    for room in (login, opening, budgets, granting, decisions, uploads, files, inbox, jobs, invitations, estimate):
        app.include_router(room.router)
    for room in (compare, questions, models, keys, audit, status, webhooks):
        app.include_router(room.router)
    return app


def _as_page(handler: Callable[..., Any]) -> Callable[..., Any]:
    """What the API says about an error, as a page, or in the form that was sent; a script gets it as it is."""

    def show(request: Request, error: Exception) -> Response:
        said: Response = handler(request, error)
        if for_script(request):
            return said
        problem = json.loads(bytes(said.body))
        again = getattr(request.state, "again", None)
        if again is not None and said.status_code < 500:
            shown: Response = again(problem, said.status_code)
            return shown
        refused = "largest_epsilon" in problem
        asked = getattr(request.state, "asked", None)
        response = page(
            request,
            "refusal.html" if refused else "error.html",
            status=said.status_code,
            problem=problem,
            asked=asked,
            back=_back(request),
            suggestions=estimate.suggestions(asked, problem["largest_epsilon"], problem["largest_share"])
            if refused and asked is not None
            else [],
        )
        response.headers.update({k: v for k, v in said.headers.items() if k in ("connection", "retry-after")})
        return response

    return show


def _back(request: Request) -> str:
    """Where the form can be mended that led to an error; empty where there was none."""
    sent = getattr(request.state, "sent", None)
    return "" if sent is None or request.scope["path"] == f"{PATH}/logout" else page_of_form(request, sent)
