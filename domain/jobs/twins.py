"""The same request twice: what has succeeded already need not be paid for again."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from domain.access.grants import Viewer, sees_job
from domain.kit.refusals import Conflict
from domain.kit.tables import file, job, job_file, release


def finished_twin(
    connection: sa.Connection,
    viewer: Viewer,
    *,
    model: str,
    model_revision: str,
    training_file: str,
    method: Mapping[str, Any],
    epsilon: float,
    synthetic: Mapping[str, Any] | None,
    measured: bool = False,
    audited: bool = False,
) -> str | None:
    """The newest succeeded job that the viewer may see with the same numbers, its adapter still there.

    model_revision: of its weights; a job of an earlier version does not say its own. method: every option and
    hyperparameter resolved. Seeds do not count: they steer initialisation alone. synthetic: text that it must
    have sampled; None: whatever it sampled. measured: whether it measures its result, for a part of its epsilon.
    audited: whether it must have been audited.
    """
    adapter = (
        sa.select(release.c.id)
        .join(file, file.c.id == release.c.file_id)
        .where(release.c.job_id == job.c.id, release.c.kind == "adapter", file.c.deleted_at.is_(None))
        .correlate(job)
    )
    return connection.execute(
        sa.select(job.c.id)
        .join(job_file, job_file.c.job_id == job.c.id)
        .where(
            job.c.tenant_id == viewer.tenant_id,
            sees_job(viewer, job.c.id),
            job_file.c.file_id == training_file,
            job.c.status == "succeeded",
            job.c.model == model,
            sa.func.coalesce(job.c.model_revision, model_revision) == model_revision,
            job.c.method.in_(_as_kept(method)),
            job.c.privacy["epsilon"].as_float() == epsilon,
            (sa.func.coalesce(sa.func.jsonb_typeof(job.c.privacy["measure"]), "null") == "object") == measured,
            adapter.exists(),
            sa.true() if synthetic is None else job.c.synthetic == dict(synthetic),
            sa.true() if not audited else job.c.audit,
        )
        .order_by(job.c.created_at.desc(), job.c.id)
        .limit(1)
    ).scalar_one_or_none()


def _as_kept(method: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The method, and as earlier versions kept it, which knew no head but a random one, and one view of a record."""
    block, found = method[method["type"]], [dict(method)]
    numbers = dict(block["hyperparameters"])
    for name, only in (("views", 1), ("head", "random")):  # the newest first
        if numbers.pop(name, None) != only:
            break
        found.append({**method, method["type"]: {**block, "hyperparameters": dict(numbers)}})
    return found


def already_done(twin: str) -> Conflict:
    """The answer to a request that would pay again for what is there."""
    return Conflict(
        f"{twin} has succeeded with the same model, file, numbers and epsilon: take its adapter, or send "
        "allow_duplicate=true to pay for another one",
        code="same_job_finished",
        param="allow_duplicate",
        job=twin,
        adapter=f"/v1/fine_tuning/jobs/{twin}/adapter",
    )
