"""The HTTP service as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from threading import Thread
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from api import errors
from api.audit import endpoints as audit
from api.audit.record import Audited
from api.budgets import endpoints as budgets
from api.dashboard.app import make_dashboard
from api.deps import Resources
from api.files import endpoints as files
from api.files import questions
from api.grants import endpoints as grants
from api.health import endpoints as health
from api.health.checks import look
from api.invitations import endpoints as invitations
from api.jobs import endpoints as jobs
from api.keys import endpoints as keys
from api.ledger import endpoints as ledger
from api.metrics import FRAMEWORK, Observed, RequestMetrics, serving
from api.middleware import BodyLimit, Envelope
from api.models import endpoints as models
from api.rate import RateLimit
from api.recent import Recent
from api.statements import endpoints as statements
from api.status import endpoints as status
from api.status.workers import answering
from api.strict import StrictJson
from api.webhooks import endpoints as webhooks
from domain.files.files import forget_dead_uploads
from domain.files.fingerprints import require_same_key
from domain.files.recognise import recognise_old
from domain.keeping.keeper import Keeper, signing_key
from domain.kit.database import make_engine, require_safe_login
from domain.kit.settings import ApiSettings, secret_bytes
from domain.kit.tracing import exporting
from domain.models.allow_list import AllowList
from domain.storage.blobs import open_store, require_usable
from domain.webhooks.herald import Herald
from domain.webhooks.outbox import Outbox
from ledger.guard import require_intact

CONNECTIONS = 10
"""Kept open to the database, and as many more when it is busy: one for each thread, one for each slot."""
CHECKS_AT_ONCE = 2


def create_app(settings: ApiSettings, *, check_first: bool = True) -> FastAPI:
    """The application. Refuses to start with a login that could overrule the ledger, or a ledger that is not whole.

    `check_first=False` leaves the refusal of jobs over budget to the database alone: for the test that it does refuse.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        engine = make_engine(settings.database_url.get_secret_value(), pool_size=CONNECTIONS)
        with engine.begin() as connection:
            require_safe_login(connection)
            require_intact(connection)
            require_same_key(connection, secret_bytes(settings.fingerprint_key), keep=True)
        to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS
        store = open_store(settings, engine)
        require_usable(store)
        forget_dead_uploads(engine, store)
        keeper = Keeper(engine, settings)
        keeper.start()
        herald = Herald(Outbox(engine), settings)
        herald.start()
        key = secret_bytes(settings.fingerprint_key)
        Thread(target=recognise_old, args=(engine, store, key), name="recognise", daemon=True).start()
        service = Resources(
            settings=settings,
            engine=engine,
            store=store,
            allow_list=AllowList(settings),
            slots=CapacityLimiter(CONNECTIONS),
            checks=CapacityLimiter(CHECKS_AT_ONCE),
            check_first=check_first,
            keeper=keeper,
            rate=RateLimit(settings.broker_url.get_secret_value(), settings.rate_limit),
            signer=signing_key(settings),
        )
        with serving(service, requests), exporting(settings.otlp_endpoint, "tacit-api") as tracer:
            looks = {
                "readiness": Recent(lambda: look(service), 1.0),
                "workers": Recent(lambda: answering(settings.broker_url.get_secret_value()), 10.0),
            }
            yield {"resources": service, "tracer": tracer, **looks}
        herald.stop()
        keeper.stop()
        engine.dispose()

    app = FastAPI(
        title="Tacit",
        version=version("tacit"),
        summary="Private fine-tuning jobs.",
        lifespan=lifespan,
        telemetry=FRAMEWORK,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses={"4XX": {"model": errors.ProblemDetails}, "5XX": {"model": errors.ProblemDetails}},
    )
    errors.install(app)
    requests = RequestMetrics()
    app.add_middleware(Audited)
    app.add_middleware(StrictJson)
    app.add_middleware(BodyLimit, upload_limit=settings.upload_limit)
    app.add_middleware(Observed, metrics=requests)
    app.add_middleware(Envelope)
    of_tenants = (
        budgets,
        grants,
        ledger,
        statements,
        questions,
        files,
        invitations,
        jobs,
        models,
        keys,
        audit,
        webhooks,
    )
    for room in (*of_tenants, status, health):
        app.include_router(room.router)
    app.mount("/dashboard", make_dashboard())

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("/dashboard/", 303)

    return app
