"""Who may use a budget and what waits for a steward: decisions of stewards, each an entry in the budget's chain.

The database writes grants from these entries alone, computes their caps, and says itself which grant pays for a job.
`by` is always the id of the deciding steward's key.
"""

from decimal import Decimal

import sqlalchemy as sa

from ledger.errors import NotWaiting, translated
from ledger.tables import entry, reservation


def give(
    connection: sa.Connection,
    budget_id: str,
    *,
    grant_id: str,
    key: str | None,
    project: str | None,
    epsilon: Decimal | None,
    approval_above: Decimal | None,
    by: str,
    reason: str | None = None,
) -> None:
    """Let a key or a project use a budget, up to `epsilon` where it is given. Raises AlreadyGranted, and GrantExceeded
    for an epsilon at which no order has any room."""
    detail = {
        "grant": grant_id,
        "key": key,
        "project": project,
        "epsilon": None if epsilon is None else str(epsilon),
        "approval_above": None if approval_above is None else str(approval_above),
    }
    _post(connection, budget_id, "grant", detail, by, reason)


def revoke(connection: sa.Connection, budget_id: str, grant_id: str, by: str, reason: str | None = None) -> None:
    """End a grant: nothing more is reserved by it, what is reserved goes on."""
    _post(connection, budget_id, "revoke", {"grant": grant_id}, by, reason)


def set_rules(
    connection: sa.Connection, budget_id: str, *, approval_above: Decimal | None, queue_days: int, by: str, reason: str
) -> None:
    """For jobs to come: above which epsilon they wait for a steward, and how many days a job may stay unstarted."""
    above = None if approval_above is None else str(approval_above)
    _post(connection, budget_id, "rules", {"approval_above": above, "queue_days": str(queue_days)}, by, reason)


def approve(connection: sa.Connection, job_id: str, by: str, reason: str | None = None) -> None:
    """Release a waiting job to the workers. Raises NotWaiting, AlreadySettled or ReservationExpired."""
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
