"""`Idempotency-Key`: the key is stored in the transaction that inserts the job, so that both exist or neither."""

import hashlib

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from api.auth import Caller
from api.errors import HttpError
from api.jobs.schemas import NewJob
from domain.keeping.retention import IDEMPOTENCY_KEPT
from domain.kit.tables import idempotency


def claim(connection: sa.Connection, caller: Caller, key: str, body: NewJob, job_id: str) -> str | None:
    """Take the key for this job, or return the job that has it. Waits for a request that holds it right now.

    Raises HttpError when the key came with another request.
    """
    own = f"{caller.key_id}:{key}"
    digest = hashlib.sha256(body.model_dump_json().encode()).digest()
    connection.execute(
        sa.delete(idempotency).where(
            idempotency.c.tenant_id == caller.tenant_id, idempotency.c.created_at < sa.func.now() - IDEMPOTENCY_KEPT
        )
    )
    taken = connection.execute(
        insert(idempotency)
        .values(tenant_id=caller.tenant_id, key=own, request_digest=digest, response={"job": job_id})
        .on_conflict_do_nothing()
        .returning(idempotency.c.key)
    ).first()
    if taken is not None:
        return None
    known = connection.execute(
        sa.select(idempotency).where(idempotency.c.tenant_id == caller.tenant_id, idempotency.c.key == own)
    ).one()
    if known.request_digest != digest:
        raise HttpError(
            422, "idempotency_key_reused", "this Idempotency-Key was used for another request; take a new one"
        )
    job: str = known.response["job"]
    return job
