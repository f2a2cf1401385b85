"""The dashboard: pages over the API's own endpoints, so that they show and do what the API would and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from api import errors
from api.dashboard import budgets, compare, estimate, files, invitations, jobs, login, models, questions
from api.dashboard.render import FILES, page
from api.dashboard.session import PATH, LoggedOut, login_url
from api.errors import HttpError
from api.metrics import FRAMEWORK


def make_dashboard() -> FastAPI:
    """An application of its own, mounted under /dashboard: its errors are pages, and /openapi.json leaves it out."""
    app = FastAPI(title="Tacit", openapi_url=None, docs_url=None, redoc_url=None, telemetry=FRAMEWORK)
    app.state.ended = {}  # sessions that logged out
    app.state.wrong_keys = anyio.Semaphore(1)
    errors.install(app)
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _as_page(handler)

    @app.exception_handler(LoggedOut)
    def logged_out(request: Request, error: LoggedOut) -> Response:
        return RedirectResponse(login_url(request, ended=error.ended), 303)

    @app.get("/")
    def home() -> Response:
        return RedirectResponse(f"{PATH}/budgets", 303)

    @app.get("/static/{place:path}")
    def static(place: str) -> Response:
        if place not in FILES:
            raise HttpError(404, "not_found", "no such file")
        content, kind = FILES[place]
        return Response(content, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"})

    for room in (login, budgets, compare, files, jobs, invitations, estimate, questions, models):
        app.include_router(room.router)
    return app


def _as_page(handler: Callable[..., Any]) -> Callable[..., Any]:
    """What the API says about an error, as a page."""

    def show(request: Request, error: Exception) -> Response:
        said = handler(request, error)
        problem = json.loads(said.body)
        refused = "largest_epsilon" in problem
        asked = getattr(request.state, "asked", None)
        response = page(
            request,
            "refusal.html" if refused else "error.html",
            status=said.status_code,
            problem=problem,
            asked=asked,
            suggestions=estimate.suggestions(asked, problem["largest_epsilon"], problem["largest_share"])
            if refused and asked is not None
            else [],
        )
        response.headers.update({k: v for k, v in said.headers.items() if k in ("connection", "retry-after")})
        return response

    return show
