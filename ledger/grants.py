"""Who may use a budget and what waits for a steward: decisions of stewards, each an entry in the budget's chain.

The database writes grants from these entries alone, computes their caps, and says itself which grant pays for a job.
`by` is always the id of the deciding steward's key.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa

from ledger.errors import NotWaiting, translated
from ledger.tables import entry, reservation


@dataclass(frozen=True)
class GrantTerms:
    """What a grant allows. The database holds its jobs to the limit, the threshold and the end; the rest is for the
    service to say."""

    epsilon: Decimal | None = None
    """The most that its jobs together may cost."""
    share: Decimal | None = None
    """In place of an epsilon: so much of the cap at the main order that the budget has when a job comes."""
    approval_above: Decimal | None = None
    expires_at: datetime | None = None
    """A whole second; from then on it admits no job."""
    models: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    most_steps: int | None = None


def give(
    connection: sa.Connection,
    budget_id: str,
    *,
    grant_id: str,
    key: str | None,
    project: str | None,
    terms: GrantTerms,
    by: str,
    reason: str | None = None,
) -> None:
    """Let a key or a project use a budget on these terms. Raises AlreadyGranted, and GrantExceeded for a limit at which
    no order has any room."""
    named = {
        "epsilon": terms.epsilon,
        "share": terms.share,
        "approval_above": terms.approval_above,
        "expires_at": None if terms.expires_at is None else int(terms.expires_at.timestamp()),
        "models": None if terms.models is None else json.dumps(list(terms.models), ensure_ascii=False),
        "methods": None if terms.methods is None else json.dumps(list(terms.methods)),
        "most_steps": terms.most_steps,
    }
    detail = {"grant": grant_id, "key": key, "project": project}
    detail |= {name: None if value is None else str(value) for name, value in named.items()}
    _post(connection, budget_id, "grant", detail, by, reason)


def revoke(connection: sa.Connection, budget_id: str, grant_id: str, by: str, reason: str | None = None) -> None:
    """End a grant: nothing more is reserved by it, what is reserved goes on."""
    _post(connection, budget_id, "revoke", {"grant": grant_id}, by, reason)


def set_rules(
    connection: sa.Connection,
    budget_id: str,
    *,
    approval_above: Decimal | None,
    queue_days: int,
    require_intended_use: bool = False,
    by: str,
    reason: str,
) -> None:
    """For jobs to come: above which epsilon they wait for a steward, how many days a job may stay unstarted, and
    whether it has to say what it is for."""
    detail = {
        "approval_above": None if approval_above is None else str(approval_above),
        "queue_days": str(queue_days),
        "require_intended_use": "true" if require_intended_use else None,
    }
    _post(connection, budget_id, "rules", detail, by, reason)


def approve(connection: sa.Connection, job_id: str, by: str, reason: str | None = None) -> None:
    """Release a waiting job to the workers. Raises NotWaiting, AlreadySettled, ReservationExpired or GrantEnded."""
    waiting = connection.execute(
        sa.select(reservation.c.id, reservation.c.budget_id)
        .where(reservation.c.job_id == job_id, reservation.c.waits)
        .order_by(reservation.c.budget_id)
    ).all()
    if not waiting:
        raise NotWaiting(f"job {job_id} does not wait for approval")
    for row in waiting:
        _post(connection, row.budget_id, "approve", {}, by, reason, reservation_id=row.id)


def _post(
    connection: sa.Connection,
    budget_id: str,
    kind: str,
    detail: dict[str, str | None],
    by: str,
    reason: str | None,
    **values: str,
) -> None:
    said = {k: v for k, v in {**detail, "by": by, "reason": reason}.items() if v is not None}
    with translated():
        connection.execute(entry.insert().values(budget_id=budget_id, kind=kind, detail=said, **values))
