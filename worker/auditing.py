"""A job's audit: before it reads a row, its worker trains on made-up units as the job will train, and asks what comes
out who was in. Everything of it is public, and nothing is charged."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from domain.jobs.events import append_event
from domain.kit.logs import describe
from domain.kit.tables import job_audit
from dpcore.audit import little
from dpcore.audit.finding import AuditFinding, find
from dpcore.audit.subject import Subject
from dpcore.machine.micro_batches import Stopped, out_of_memory
from dpcore.terms.audits import CANARIES, CONFIDENCE, subject_epsilon
from dpcore.terms.reasons import shown
from ledger.budgets import balance
from ledger.work import Lease
from worker.assignment import Assignment
from worker.errors import Refused
from worker.log import log


def finding_of(connection: sa.Connection, job_id: str) -> dict[str, Any] | None:
    """What the audit of a job found, by an earlier attempt or this one; None of a job without one."""
    kept = sa.select(job_audit.c.finding).where(job_audit.c.job_id == job_id)
    found: dict[str, Any] | None = connection.execute(kept).scalar_one_or_none()
    return found


def audit(engine: sa.Engine, lease: Lease, assignment: Assignment, should_stop: Callable[[], bool]) -> None:
    """Audit the job's training, unless an earlier attempt did, and keep the finding. Raises Refused where a
    bound lies above the claim, or there is no audit for such training; Stopped when it is asked to stop."""
    with engine.connect() as connection:
        if finding_of(connection, assignment.job_id) is not None:
            return
        delta = balance(connection, assignment.budget_id).delta
    finding = _found(assignment, delta, should_stop)
    bounds = max(finding.direct, finding.gaussian or 0.0, finding.fitted or 0.0)
    if finding.above:
        log.error("job %s: its audit found %.3g above the claim %.3g", assignment.job_id, bounds, finding.claim)
        raise Refused(
            "audit_failed",
            f"The audit found an epsilon of {bounds:.3g} or more where {finding.claim:.3g} is claimed: training on "
            "this worker is not as private as it says. No row was read.",
        )
    message = f"Audited before the first row: epsilon {bounds:.3g} or more was found, {finding.claim:.3g} is claimed."
    kept = job_audit.insert().values(job_id=assignment.job_id, fence=lease.fence, finding=finding.line())
    with engine.begin() as connection:
        connection.execute(kept)
        append_event(connection, assignment.job_id, "audit.finished", message, finding.line())


def _found(assignment: Assignment, delta: float, should_stop: Callable[[], bool]) -> AuditFinding:
    program = assignment.program
    subject = Subject(
        method=program.method,
        task=assignment.task,
        unit=program.unit,
        clipping=program.training[0].clipping,
        epsilon=subject_epsilon(float(assignment.privacy["epsilon"])),
        delta=delta,
    )
    with TemporaryDirectory(prefix="tacit-audit-") as folder:
        model = little.write(Path(folder), assignment.task)
        try:
            return find("canaries", subject, model, CANARIES, CONFIDENCE, should_stop=should_stop)
        except Stopped:
            raise
        except Exception as error:  # all of it is public: made-up units on a model of our own
            log.error("job %s: no audit: %s", assignment.job_id, describe(error))
            if out_of_memory(error):
                raise Refused("out_of_memory", "The audit does not fit into this worker's memory.") from error
            why = f"Such training could not be audited: {shown(str(error)) or type(error).__name__}."
            raise Refused("not_trainable", why) from error
