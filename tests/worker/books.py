"""What the ledger says of a job, phase by phase, and what must hold of it whatever became of the job."""

from collections import Counter
from typing import Any

import sqlalchemy as sa

from dpcore.terms import accounting
from ledger.tables import authorisation, entry, phase, reservation
from tests.worker.service import Service


def paid(service: Service, job_id: str) -> list[sa.Row[Any]]:
    """The job's phases in the ledger, in order."""
    rows = sa.select(phase).join(reservation, reservation.c.id == phase.c.reservation_id)
    return list(service.all(rows.where(reservation.c.job_id == job_id).order_by(phase.c.ordinal)))


def authorised(service: Service, job_id: str) -> list[int]:
    return [row.steps_authorised for row in paid(service, job_id)]


def price(rows: list[sa.Row[Any]]) -> list[int]:
    return list(accounting.total([accounting.cost(tuple(r.step_cost), r.steps_authorised) for r in rows]))


def by_fence(service: Service, job_id: str) -> Counter[int]:
    """Steps that were authorised under each fence."""
    steps = (
        sa.select(authorisation.c.fence, sa.func.sum(authorisation.c.steps).label("steps"))
        .join(reservation, reservation.c.id == authorisation.c.reservation_id)
        .where(reservation.c.job_id == job_id)
        .group_by(authorisation.c.fence)
    )
    return Counter({row.fence: int(row.steps) for row in service.all(steps)})


def wrong(service: Service, job_id: str) -> list[str]:
    """What is wrong with the charges of a job that has ended: one reservation, settled once, at the price of the steps
    that were authorised, or, where it failed after the first, of everything."""
    rows, failed = paid(service, job_id), service.status(job_id) == "failed"
    entries = service.all(
        sa.select(entry)
        .join(reservation, reservation.c.id == entry.c.reservation_id)
        .where(reservation.c.job_id == job_id)
    )
    kinds = sorted(e.kind for e in entries)
    steps = [row.steps_authorised for row in rows]
    owed = list(accounting.total([tuple(r.reserved) for r in rows])) if failed and any(steps) else price(rows)
    charged = [e.spent_change for e in entries if e.kind == "settle"]
    fences = by_fence(service, job_id)
    holds = {
        f"entries {kinds}": kinds == ["reserve", "settle"],
        f"charged {charged}, owed {owed}": charged == [owed],
        f"authorised {steps} of {[r.steps_max for r in rows]}": all(r.steps_authorised <= r.steps_max for r in rows),
        f"authorisations {fences}, authorised {steps}": sum(fences.values()) == sum(steps),
    }
    return [f"{job_id}: {what}" for what, so in holds.items() if not so]


def lose(service: Service) -> None:
    """The lease of a dead worker runs out."""
    with service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.text("UPDATE ledger.work SET lease_until = clock_timestamp() - interval '1 s'"))
