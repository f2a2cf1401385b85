"""Where an attempt stands, kept for the next one: bytes in the blob store, made known by a fenced row."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from domain.kit.statuses import ENDED
from domain.kit.tables import checkpoint, job
from domain.storage.blobs import Store, delete, delete_all, get_bytes, put_bytes
from ledger.errors import translated
from ledger.tables import work
from ledger.work import Lease
from worker.errors import STORE_ERRORS
from worker.log import log


def save(engine: sa.Engine, store: Store, lease: Lease, step: int, data: bytes) -> None:
    """Keep a checkpoint and drop the ones before it. Raises StaleFence, a store's or the database's error."""
    blob = f"{_prefix(store, lease.job_id)}{lease.fence}-{step}.safetensors"
    put_bytes(store, blob, data)
    with translated(), engine.begin() as connection:
        # The same step may be saved twice, at the end of a chunk and at a stop right after it: the same bytes.
        connection.execute(
            insert(checkpoint)
            .values(job_id=lease.job_id, fence=lease.fence, step=step, blob=blob)
            .on_conflict_do_nothing()
        )
    _drop_older(engine, store, lease, blob)


def newest_step(connection: sa.Connection, job_id: str) -> int:
    """How far a job was when it was last kept; 0 where it never was."""
    steps = sa.select(sa.func.coalesce(sa.func.max(checkpoint.c.step), 0)).where(checkpoint.c.job_id == job_id)
    return int(connection.execute(steps).scalar_one())


_last = sa.select(sa.func.max(checkpoint.c.fence)).where(checkpoint.c.job_id == work.c.job_id)
tries = work.c.fence - sa.func.coalesce(sa.func.greatest(_last.scalar_subquery(), work.c.excused_fence), 0)
"""Of a job's work: attempts since the last one that kept a checkpoint, or was excused."""


def fruitless(connection: sa.Connection, lease: Lease) -> int:
    """How many attempts there were since then, this one included where it kept none."""
    return int(connection.execute(sa.select(tries).where(work.c.job_id == lease.job_id)).scalar_one())


def newest(engine: sa.Engine, store: Store, job_id: str) -> bytes | None:
    """What the last attempt left, or None. Raises a store's or the database's error."""
    with engine.connect() as connection:
        blob = connection.execute(
            sa.select(checkpoint.c.blob)
            .where(checkpoint.c.job_id == job_id)
            .order_by(checkpoint.c.step.desc(), checkpoint.c.fence.desc())
            .limit(1)
        ).scalar_one_or_none()
    return None if blob is None else get_bytes(store, blob)


def discard(engine: sa.Engine, store: Store, job_id: str) -> None:
    """Forget a finished job's checkpoints, those that an attempt wrote but did not live to record included."""
    with _untidy(job_id):
        delete_all(store, _prefix(store, job_id))
        delete_all(store, f"exchange/{job_id}/")
        with engine.begin() as connection:  # blobs first: as long as there is a row, somebody tries again
            connection.execute(sa.delete(checkpoint).where(checkpoint.c.job_id == job_id))


def _drop_older(engine: sa.Engine, store: Store, lease: Lease, kept: str) -> None:
    # A later attempt's checkpoints have a higher fence and are not ours to drop, however late we are.
    older = sa.and_(checkpoint.c.job_id == lease.job_id, checkpoint.c.fence <= lease.fence, checkpoint.c.blob != kept)
    with _untidy(lease.job_id):
        with engine.begin() as connection:  # rows first, so that no row names a missing blob
            blobs = connection.execute(sa.delete(checkpoint).where(older).returning(checkpoint.c.blob)).scalars().all()
        for blob in blobs:
            delete(store, blob)


def tidy(engine: sa.Engine, store: Store, own: sa.ColumnElement[bool]) -> None:
    """Discard what finished jobs left: those that ended without a worker, or whose worker died right after. own: a
    condition on the work of those that this worker may touch."""
    over = (
        sa.select(checkpoint.c.job_id)
        .join(job, job.c.id == checkpoint.c.job_id)
        .join(work, work.c.job_id == job.c.id)
        .where(job.c.status.in_(ENDED), own)
    )
    with engine.connect() as connection:
        jobs = connection.execute(over.distinct()).scalars().all()
    for job_id in jobs:
        discard(engine, store, job_id)


@contextmanager
def _untidy(job_id: str) -> Iterator[None]:
    """What fails in here costs only space."""
    try:
        yield
    except STORE_ERRORS as error:
        log.warning("job %s: old checkpoints stay for now: %s", job_id, type(error).__name__)


def _prefix(store: Store, job_id: str) -> str:
    return f"{store.home}jobs/{job_id}/checkpoints/"
