"""What service code makes of every row: a stored value must not end a list, nor hide one tenant's things from it."""

import json
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from api.audit import endpoints as audit_log
from api.budgets.schemas import budget_of, entry_of
from api.files import questions
from api.files.schemas import file_of
from api.grants.schemas import grant_of
from api.jobs.schemas import event_of, job_of
from api.keys.schemas import key_of
from api.models.endpoints import profile_of, refused_of
from api.webhooks.schemas import webhook_of
from domain.access import budgets, grants
from domain.access.grants import Viewer
from domain.files import files, upload_reports
from domain.files.questions import open_questions
from domain.jobs import events, reading
from domain.jobs.progress import estimated_finishes
from domain.kit.tables import api_key, audit, idempotency, keeper_watch
from domain.models import profiles
from domain.models.allow_list import BaseModelFacts
from domain.webhooks import hooks
from dpcore.terms.facts import ModelFacts
from ledger.budgets import as_balance
from ledger.chains import freezes
from ledger.tables import budget

SIGNER = Ed25519PrivateKey.generate()
FACTS = ModelFacts(
    model_type="bert",
    biases=500,
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=2,
    vocab_size=100,
    max_positions=64,
)
MODEL = BaseModelFacts("minilm-l6", Path("/nowhere"), FACTS, "r", 0)
MODELS: dict[str, BaseModelFacts] = {"minilm-l6": MODEL}


VIEWERS = [
    Viewer("key_a", "tenant_a", frozenset(["steward"])),
    Viewer("analyst_a", "tenant_a", frozenset(["analyst"]), "lab"),
    Viewer("key_b", "tenant_b", frozenset(["admin"])),
]


def _shown(*answers: BaseModel) -> None:
    """As an answer's body, in which every number is one."""
    for answer in answers:
        json.dumps(answer.model_dump(mode="json"), allow_nan=False).encode()


def _budgets(c: sa.Connection) -> None:
    for row in c.execute(sa.select(budget)).all():
        as_balance(row)
        _shown(budget_of(row))
        _shown(*(entry_of(e, row) for e in c.execute(budgets.entries(row))))
    freezes(c)


def _grants(c: sa.Connection) -> None:
    for viewer in VIEWERS:
        for row in c.execute(grants.readable_budgets(viewer)).all():
            _shown(*(grant_of(g, as_balance(row)) for g in c.execute(grants.of_budget(viewer, row.id))))
            grants.used_by(c, viewer, as_balance(row))


def _jobs(c: sa.Connection) -> None:
    for viewer in VIEWERS:
        rows = c.execute(reading.page_of_tenant(viewer)).all()
        finishes = estimated_finishes(c, MODELS, rows)
        _shown(*(job_of(row, SIGNER, finishes.get(row.id)) for row in rows))


def _events(c: sa.Connection) -> None:
    for job in c.execute(sa.text("SELECT DISTINCT job_id FROM job_event")).scalars().all():
        _shown(*(event_of(row) for row in c.execute(events.numbered(job))))


def _files(c: sa.Connection) -> None:
    for viewer in VIEWERS:
        _shown(*(file_of(row, viewer) for row in c.execute(files.of_tenant(viewer))))


def _reports(c: sa.Connection) -> None:
    for file_id in c.execute(sa.text("SELECT file_id FROM upload_report")).scalars().all():
        _shown(*filter(None, [upload_reports.of_file(c, file_id)]))


def _questions(c: sa.Connection) -> None:
    for tenant in ("tenant_a", "tenant_b"):
        _shown(*questions.readable(c.execute(open_questions(tenant)).all()))


def _keys(c: sa.Connection) -> None:
    _shown(*(key_of(row) for row in c.execute(sa.select(api_key))))


def _audit(c: sa.Connection) -> None:
    _shown(*(audit_log._shown(row) for row in c.execute(sa.select(audit))))


def _webhooks(c: sa.Connection) -> None:
    for tenant in ("tenant_a", "tenant_b"):
        viewer = Viewer("key", tenant, frozenset({"steward"}))
        _shown(*(webhook_of(row) for row in c.execute(hooks.of_tenant(viewer))))


def _models(c: sa.Connection) -> None:
    known = profiles.known(c, MODEL)
    _shown(*(profile_of(one) for one in known.profiles), *(refused_of(one) for one in known.trials))


def _notes(c: sa.Connection) -> None:
    for row in c.execute(sa.select(idempotency)):
        assert isinstance(row.response["job"], str)
    for row in c.execute(sa.select(keeper_watch)):
        dict(row.detail.get("failing") or {})
        row.finished_at.timestamp()


_READERS: list[tuple[Callable[[sa.Connection], None], set[str]]] = [
    (_budgets, {"ledger.budget", "ledger.entry", "ledger.reservation"}),
    (_grants, {"ledger.budget", "ledger.budget_grant", "public.api_key", "public.tenant"}),
    (
        _jobs,
        {
            "public.job",
            "public.job_file",
            "public.release",
            "public.file",
            "ledger.entry",
            "ledger.reservation",
            "ledger.phase",
            "public.model_profile",
            "public.model_trial",
        },
    ),
    (_events, {"public.job", "public.job_event"}),
    (_files, {"public.file", "public.release", "public.job_file", "public.api_key", "public.tenant"}),
    (_reports, {"public.upload_report"}),
    (_questions, {"public.question"}),
    (_keys, {"public.api_key"}),
    (_audit, {"public.audit"}),
    (_webhooks, {"public.webhook", "public.webhook_delivery"}),
    (_models, {"public.model_profile", "public.model_trial"}),
    (_notes, {"public.idempotency", "public.keeper_watch"}),
]
"""And the tables whose rows each reads."""


def unreadable(c: sa.Connection, tables: set[str] | None = None) -> list[str]:
    """What cannot be read any more, where any of these tables was written to."""
    found = []
    for reader, read in _READERS:
        if tables is None or read & tables:
            try:
                reader(c)
            except Exception as error:  # noqa: BLE001  whatever a stored value does to a reader
                found.append(f"{reader.__name__[1:]} cannot be read: {type(error).__name__}: {str(error)[:200]!r}")
    return found
