"""Reserving the most that a job may cost, and settling what it did cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from ledger.errors import StaleFence, translated
from ledger.tables import entry, phase, reservation, work

JobOutcome = Literal["succeeded", "cancelled", "failed"]


@dataclass(frozen=True)
class Priced:
    """A phase of a job as the ledger sees it: `steps` Poisson-subsampled Gaussian steps."""

    sample_rate: float
    noise_multiplier: float
    steps: int
    indivisible: bool = False
    """Cannot be cut into steps: paid for whole when it begins."""


@dataclass(frozen=True)
class Charge:
    """What a job asks of the budget behind one of its private files."""

    reservation_id: str
    file_id: str
    budget_id: str
    phases: Sequence[Priced]


@dataclass(frozen=True)
class Admission:
    """Where a charge stands in its budget's chain of entries."""

    budget_id: str
    seq: int
    hash: str
    waits: bool
    """Whether the database made the job wait for a steward."""


def reserve(
    connection: sa.Connection, job_id: str, charges: Sequence[Charge], queue_days: int | None = None
) -> list[Admission]:
    """Reserve on every budget or on none; the caller commits. The job and its job_file rows exist already.

    The database finds the grants that the job's key uses the budgets by, charges them too, and makes the job wait where
    a budget or a grant wants a steward's approval. queue_days: within which a worker must begin, at most the budget's.
    Raises BudgetExceeded, GrantExceeded, NotGranted or BudgetFrozen; the transaction must then be rolled back.
    """
    # A login may name only the columns it was granted, so that what is not wished for is left out.
    wish = {} if queue_days is None else {"starts_by": sa.func.now() + sa.func.make_interval(0, 0, 0, queue_days)}
    receipts = []
    with translated():
        connection.execute(work.insert().values(job_id=job_id))
        for charge in sorted(charges, key=lambda c: c.budget_id):  # one lock order for everyone
            connection.execute(
                reservation.insert().values(
                    id=charge.reservation_id, job_id=job_id, file_id=charge.file_id, budget_id=charge.budget_id, **wish
                )
            )
            connection.execute(
                phase.insert().values(reservation_id=charge.reservation_id),
                [
                    {
                        "ordinal": i,
                        "sample_rate": p.sample_rate,
                        "noise_multiplier": p.noise_multiplier,
                        "steps_max": p.steps,
                        "indivisible": p.indivisible,
                    }
                    for i, p in enumerate(charge.phases)
                ],
            )
            receipts.append(_post(connection, charge.budget_id, "reserve", charge.reservation_id))
    return receipts


def settle(
    connection: sa.Connection,
    job_id: str,
    outcome: JobOutcome,
    fence: int | None = None,
    detail: Mapping[str, str] | None = None,
) -> list[Admission]:
    """Settle every open reservation of a job: authorised steps are spent, the rest is given back; a failure after the
    first authorised step spends everything reserved. With a fence it must be the current one; without one nobody may
    hold the lease. `detail` says who decided and why, for the entry. Raises StaleFence or AlreadySettled."""
    with translated():
        rows = connection.execute(
            sa.select(reservation.c.id, reservation.c.budget_id)
            .where(reservation.c.job_id == job_id, reservation.c.state == "reserved")
            .order_by(reservation.c.budget_id)
        ).all()
        if not rows:
            _require_fence_without_entries(connection, job_id, fence)
        return [_post(connection, r.budget_id, "settle", r.id, outcome, fence, detail) for r in rows]


def _require_fence_without_entries(connection: sa.Connection, job_id: str, fence: int | None) -> None:
    """Of a federated job, which reserved nothing: no entry asks for its fence. Raises StaleFence."""
    held = sa.func.coalesce(work.c.lease_until > sa.func.clock_timestamp(), sa.false()).label("held")
    reserved = sa.exists().where(reservation.c.job_id == work.c.job_id)
    found = sa.select(work.c.fence, held).where(work.c.job_id == job_id, ~reserved).with_for_update()
    row = connection.execute(found).one_or_none()
    if row is not None and (row.held if fence is None else not row.held or row.fence != fence):
        raise StaleFence(f"the lease on job {job_id} is not held under fence {fence}")


def _post(
    connection: sa.Connection,
    budget_id: str,
    kind: str,
    reservation_id: str,
    outcome: JobOutcome | None = None,
    fence: int | None = None,
    detail: Mapping[str, str] | None = None,
) -> Admission:
    values: dict[str, object] = {"budget_id": budget_id, "kind": kind, "reservation_id": reservation_id}
    # A login may name only the columns it was granted: the API has no fence to name.
    if outcome is not None:
        values["outcome"] = outcome
    if fence is not None:
        values["fence"] = fence
    if detail is not None:
        values["detail"] = dict(detail)
    adding = entry.insert().values(**values).returning(entry.c.seq, entry.c.hash, entry.c.detail)
    row = connection.execute(adding).one()
    return Admission(budget_id, row.seq, row.hash.hex(), "waits" in (row.detail or {}))
