"""How much one tenant may hold: what is refused names the limit."""

import sqlalchemy as sa

from domain.kit.refusals import Forbidden, TooMany
from domain.kit.statuses import OPEN
from domain.kit.tables import file, invitation, job

MOST_INVITATIONS = 100
"""Of one tenant, that are open: a guest reads every one that it gets."""


def require_storage(connection: sa.Connection, tenant_id: str, more: int, most: int | None) -> None:
    """Raises Forbidden when `more` bytes would take the tenant's files past `most`; None: no limit.

    It stays true for a transaction that holds the lock of `fingerprints`.
    """
    if most is None:
        return
    mine = sa.select(sa.func.coalesce(sa.func.sum(file.c.bytes), 0))
    held = int(connection.execute(mine.where(file.c.tenant_id == tenant_id, file.c.deleted_at.is_(None))).scalar_one())
    if held + more > most:
        raise Forbidden(
            f"the files of a tenant may have {most} bytes together; there are {held}, and this one has {more}: delete "
            "some, or ask the operator for more",
            code="storage_quota_exceeded",
            param="file",
        )


def require_few_jobs(connection: sa.Connection, tenant_id: str, most: int | None) -> None:
    """Raises TooMany when the tenant has as many open jobs as it may have; None: no limit.

    Until the transaction ends no other of this tenant's submissions gets past here.
    """
    if most is None:
        return
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"tacit.jobs:{tenant_id}", 0))))
    open_jobs = sa.select(job.c.id).where(job.c.tenant_id == tenant_id, job.c.status.in_(OPEN)).limit(most).subquery()
    if connection.execute(sa.select(sa.func.count()).select_from(open_jobs)).scalar_one() >= most:
        raise TooMany(
            f"a tenant may have {most} jobs that are queued or running; wait for some to end, or cancel them",
            code="job_quota_exceeded",
        )


def require_few_invitations(connection: sa.Connection, tenant_id: str) -> None:
    """Raises TooMany when the tenant has sent as many invitations as may be open. Whom they are for counts for nothing,
    so that it tells nothing of guests.

    Until the transaction ends no other of this tenant's invitations gets past here.
    """
    lock = sa.func.hashtextextended(f"tacit.invitations:{tenant_id}", 0)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
    its = invitation.c
    waits = its.withdrawn_at.is_(None), its.job_id.is_(None), its.expires_at > sa.func.clock_timestamp()
    mine = sa.select(its.id).where(its.tenant_id == tenant_id, *waits).limit(MOST_INVITATIONS).subquery()
    if connection.execute(sa.select(sa.func.count()).select_from(mine)).scalar_one() >= MOST_INVITATIONS:
        raise TooMany(
            f"a tenant may have {MOST_INVITATIONS} open invitations; withdraw some, or wait until they are answered",
            code="invitation_quota_exceeded",
        )
