"""One request, one job: `Idempotency-Key`, and what clients repeat by themselves without one.

A note is stored in the transaction that inserts the job, so that both exist or neither; whoever asks the same meanwhile
waits for it.
"""

import hashlib
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from api.auth import Caller
from api.errors import HttpError
from api.jobs.schemas import NewJob
from domain.keeping.retention import IDEMPOTENCY_KEPT
from domain.kit.statuses import ENDED
from domain.kit.tables import idempotency, job

SHORTLY = timedelta(minutes=5)
"""Within which the same request of the same key, without a key of its own, is the same job: longer than clients that
lost an answer go on asking by themselves, and shorter than it takes to want the same run once more."""


def claim(connection: sa.Connection, caller: Caller, key: str, body: NewJob, job_id: str) -> str | None:
    """Take the key for this job, or return the job that has it. Waits for a request that holds it right now.

    Raises HttpError when the key came with another request.
    """
    own, digest = f"{caller.key_id}:{key}", _digest(body)
    known = _noted(connection, caller, own, digest, job_id)
    if known is None:
        return None
    if known.request_digest != digest:
        raise HttpError(
            422, "idempotency_key_reused", "this Idempotency-Key was used for another request; take a new one"
        )
    return _job_of(known)


def repeated(connection: sa.Connection, caller: Caller, body: NewJob, job_id: str, *, anew: bool) -> str | None:
    """The job that this API key asked for shortly before in the same words, unless it has ended; otherwise they are
    noted for this job. Waits for the same request where it is under way.

    anew: another job is meant, and only what is asked after it is a repetition.
    """
    digest = _digest(body)
    own = f"{caller.key_id} {digest.hex()}"  # no key that a client can send has a space
    # A job that this statement does not see yet cannot have ended.
    over = sa.select(job.c.id).where(job.c.id == idempotency.c.response["job"].astext, job.c.status.in_(ENDED)).exists()
    old = sa.or_(sa.literal(anew), idempotency.c.created_at < sa.func.now() - SHORTLY, over)
    known = _noted(connection, caller, own, digest, job_id, sa.and_(idempotency.c.key == own, old))
    return None if known is None or anew else _job_of(known)


def forget(connection: sa.Connection, caller: Caller, key: str) -> None:
    """Give up a key that was claimed for a job that is not made."""
    own = idempotency.c.key == f"{caller.key_id}:{key}"
    connection.execute(sa.delete(idempotency).where(idempotency.c.tenant_id == caller.tenant_id, own))


def _noted(
    connection: sa.Connection,
    caller: Caller,
    key: str,
    digest: bytes,
    job_id: str,
    forgotten: sa.ColumnElement[bool] | None = None,
) -> sa.Row[Any] | None:
    """The note that there is under this key; None, and it is this request's from now on, where there is none. Notes
    that have had their time go first, and so does what is `forgotten`."""
    had_its_time = idempotency.c.created_at < sa.func.now() - IDEMPOTENCY_KEPT
    old = had_its_time if forgotten is None else sa.or_(had_its_time, forgotten)
    mine = idempotency.c.tenant_id == caller.tenant_id
    gone = sa.delete(idempotency).where(mine, old).returning(idempotency.c.key).cte("gone")
    # In one statement; that it counts what is gone says that the old note goes first.
    note = sa.select(
        sa.literal(caller.tenant_id),
        sa.literal(key),
        sa.literal(digest, sa.LargeBinary),
        sa.literal({"job": job_id}, idempotency.c.response.type),
    ).where(sa.select(sa.func.count()).select_from(gone).scalar_subquery() >= 0)
    columns = ["tenant_id", "key", "request_digest", "response"]
    taken = (
        insert(idempotency)
        .add_cte(gone)
        .from_select(columns, note)
        .on_conflict_do_nothing()
        .returning(idempotency.c.key)
    )
    if connection.execute(taken).first() is not None:
        return None
    return connection.execute(sa.select(idempotency).where(mine, idempotency.c.key == key)).one()


def _digest(body: NewJob) -> bytes:
    return hashlib.sha256(body.model_dump_json().encode()).digest()


def _job_of(note: sa.Row[Any]) -> str:
    found: str = note.response["job"]
    return found
