"""What a job asks for, read from the database, and checked against what its reservation paid for."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from domain.files.binding import BrokenBinding, open_file
from domain.kit.purposes import PUBLIC
from domain.kit.tables import file, invitation, job, job_file
from domain.storage.blobs import NotMounted, Store
from domain.storage.sealing import Sealed
from dpcore.terms.program import Program
from dpcore.terms.synthetic import Synthetic
from dpcore.terms.tasks import CAUSAL_LM, TaskKind
from dpcore.terms.teachers import teacher_job
from ledger.budgets import balance
from ledger.tables import phase, reservation
from worker.errors import Refused
from worker.teachers import Released, read_released


@dataclass(frozen=True)
class EvaluationFile:
    """A file that was public from upload on."""

    id: str
    rows: Sealed
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """Everything that one attempt needs to know; all of it public but the rows that `rows` can be read for."""

    job_id: str
    accounted: str
    """The job whose reservation pays: itself, or a federated job's own silo."""
    tenant_id: str
    model: str
    model_revision: str | None
    """sha256 of the weights that it was planned for; None for a job of an earlier version."""
    task: TaskKind
    program: Program
    privacy: dict[str, Any]
    budget_id: str
    labels: tuple[str, ...]
    """In the order that the model has them."""
    held_out: float
    """The share of the budget's units that nothing trains on."""
    rows: Sealed | None
    """None of a federated job, which opens none."""
    evaluation: EvaluationFile | None
    teacher: Released | None = None
    """What an earlier job released, where the program names one."""
    own_labels: tuple[str, ...] = ()
    """In the order that the rows have them; another one in a silo than in the federated job."""
    synthetic: Synthetic | None = None
    """Text to sample from what is released."""
    audit: bool = False
    """Whether the training is to be audited before the first row is read."""


def read_assignment(connection: sa.Connection, store: Store, job_id: str) -> Assignment:
    """Read a job and open its files; no row is read.

    Raises Refused when what it would run is not exactly what the ledger reserved and priced, or a file is not tied to
    its rows and its budget; errors of the store and of the database otherwise.
    """
    row = connection.execute(sa.select(job).where(job.c.id == job_id)).one()
    accounted = row.silo_job or job_id
    sources = connection.execute(
        sa.select(file).join(job_file, job_file.c.file_id == file.c.id).where(job_file.c.job_id == accounted)
    ).all()
    if len(sources) != 1:
        raise Refused("not_trainable", "The job must have exactly one training file.")
    (source,) = sources
    if source.blob is None or (source.labels is None and source.task not in CAUSAL_LM):
        raise Refused("not_trainable", "The training file is gone or has no labels.")
    try:
        program = Program.model_validate(row.plan)
        synthetic = None if row.synthetic is None else Synthetic.model_validate(row.synthetic)
    except ValidationError as error:
        raise Refused("plan_mismatch", "The job's plan is not one that this worker can run.") from error
    federated = row.silo_job is not None
    if not federated:
        _require_priced(connection, job_id, program)
    teacher = teacher_job(program)
    if teacher != row.teacher_job:
        raise Refused("plan_mismatch", "The job's plan names another teacher than the one that its budget allows.")
    return Assignment(
        job_id=job_id,
        accounted=accounted,
        tenant_id=row.tenant_id,
        model=row.model,
        model_revision=row.model_revision,
        task=source.task,
        program=program,
        privacy=row.privacy,
        budget_id=source.budget_id,
        labels=_labels(connection, job_id, source),
        held_out=balance(connection, source.budget_id).held_out,
        own_labels=tuple(source.labels or ()),
        rows=None if federated else _opened(connection, store, source, "training"),
        evaluation=_evaluation_file(connection, store, row.validation_file, source),
        teacher=None if teacher is None else read_released(connection, store, teacher, source),
        synthetic=synthetic,
        audit=row.audit,
    )


def _labels(connection: sa.Connection, job_id: str, source: sa.Row[Any]) -> tuple[str, ...]:
    """In the order of the federated job that the file takes part in, if it does; in its own otherwise."""
    asked = connection.scalar(sa.select(invitation.c.asked).where(invitation.c.job_id == job_id))
    return tuple(source.labels or ()) if asked is None else tuple(asked["labels"])


def _opened(connection: sa.Connection, store: Store, source: sa.Row[Any], which: str) -> Sealed:
    try:
        return open_file(connection, store, source)
    except NotMounted as error:
        message = f"The {which} file lies where this worker keeps nothing: it was not uploaded for this silo."
        raise Refused("not_trainable", message) from error
    except BrokenBinding as error:
        message = f"The {which} file is not tied to the rows that are stored for it: the service's data was changed."
        raise Refused(error.code, message) from error


def _require_priced(connection: sa.Connection, job_id: str, program: Program) -> None:
    """The program is only a wish: what may run are the mechanisms in the ledger, to the last bit, all of them in every
    budget."""
    table = phase.c
    priced: dict[str, list[tuple[Any, ...]]] = {}
    for row in connection.execute(
        sa.select(
            table.reservation_id,
            *(table.ordinal, table.sample_rate, table.noise_multiplier, table.steps_max, table.indivisible),
            table.curve_id,
        )
        .join(reservation, reservation.c.id == table.reservation_id)
        .where(reservation.c.job_id == job_id)
        .order_by(table.ordinal)
    ):
        priced.setdefault(row.reservation_id, []).append(tuple(row)[1:])
    wanted = [
        (ordinal, p.mechanism.sample_rate, p.mechanism.noise_multiplier, p.steps, p.mechanism.indivisible, None)
        for ordinal, p in enumerate(program.phases)
    ]
    if not priced or any(found != wanted for found in priced.values()):
        raise Refused("plan_mismatch", "The job's plan is not the one that its reservation paid for.")


def _evaluation_file(
    connection: sa.Connection, store: Store, file_id: str | None, training: sa.Row[Any]
) -> EvaluationFile | None:
    if file_id is None:
        return None
    row = connection.execute(sa.select(file).where(file.c.id == file_id)).one()
    # A metric on a private file would be a release that nobody paid for.
    if row.budget_id is not None or row.purpose != PUBLIC or row.tenant_id != training.tenant_id:
        raise Refused("not_trainable", "The validation file is not a public one.")
    if row.blob is None or row.task != training.task or not set(row.labels or ()) <= set(training.labels or ()):
        raise Refused("not_trainable", "The validation file is gone, or not for the training file's task and labels.")
    return EvaluationFile(file_id, _opened(connection, store, row, "validation"), tuple(row.labels or ()))
