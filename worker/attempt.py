"""One attempt at a job: claim, build, train, publish; or stop cleanly and leave the rest to the next attempt."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from torch import nn

from domain.jobs.events import append_event
from domain.jobs.releases import publish
from domain.kit.logs import describe
from domain.kit.settings import WorkerSettings
from domain.storage.blobs import Store, open_store, require_room
from domain.storage.rows import read_rows
from dpcore.checkpoint import read_step
from dpcore.engine.errors import NotTrainable
from dpcore.machine.micro_batches import out_of_memory
from dpcore.methods import get_trainer
from dpcore.run import Outcome, run
from dpcore.tasks.records import Records
from dpcore.terms.program import Program
from dpcore.terms.reasons import shown
from ledger import work
from ledger.errors import (
    AlreadySettled,
    BudgetFrozen,
    LedgerError,
    PauseRequested,
    ReservationExpired,
    StaleFence,
    StopRequested,
)
from ledger.work import Lease
from worker import checkpoints, ends, results
from worker.assignment import Assignment, read_assignment
from worker.build import Built, build
from worker.drain import draining
from worker.errors import STORE_ERRORS, DataPhaseFailed, OutOfTime, Refused, Unavailable
from worker.lease import Heartbeat, claim
from worker.log import log
from worker.tracing import Spans

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


def attempt(engine: sa.Engine, settings: WorkerSettings, job_id: str, tracer: "Tracer | None" = None) -> None:
    """Work on a job until it is finished, somebody else has it, or this worker must let go.

    Raises sqlalchemy's errors while the database is away: the lease then runs out and the job is sent again.
    """
    store = open_store(settings, engine)
    claimed_at = time.monotonic()
    with engine.begin() as connection:
        lease = claim(connection, job_id, settings.lease_seconds)
        if lease is None:
            return
        worked = work.count(connection, lease, 0.0)
    beating = Heartbeat(engine, lease, settings.lease_seconds, claimed_at, worked=worked, limit=settings.job_seconds)
    with beating as heartbeat:
        try:
            with Spans(tracer, lease) as spans:
                finished = _Attempt(engine, store, settings, lease, heartbeat, spans).run()
        except ReservationExpired:
            with engine.begin() as connection:
                ends.expire(connection, job_id, lease.fence)
            finished = True
        except Refused as reason:
            log.error("job %s: refused: %s: %s", job_id, reason.code, reason.message)
            with engine.begin() as connection:
                ends.fail(connection, job_id, lease.fence, reason)
            finished = True
        except DataPhaseFailed as error:
            log.error("job %s: failed in the data phase: %s", job_id, describe(error))
            finished = ends.fail_privately(engine, lease)
        except (StaleFence, AlreadySettled):
            log.warning("job %s: somebody else has it; nothing of this attempt is kept", job_id)
            return
        except (StopRequested, PauseRequested, Unavailable, BudgetFrozen) as error:
            log.warning("job %s: let go: %s", job_id, describe(error))
            finished = False
        try:
            finished = finished or ends.let_go(engine, lease)
        except (StaleFence, AlreadySettled):
            log.warning("job %s: the lease ran out before it was given back", job_id)
    if finished:
        checkpoints.discard(engine, store, job_id)
    with engine.begin() as connection:
        work.drop(connection, lease)


class _Attempt:
    """What the steps of one attempt share."""

    def __init__(
        self,
        engine: sa.Engine,
        store: Store,
        settings: WorkerSettings,
        lease: Lease,
        heartbeat: Heartbeat,
        spans: Spans,
    ) -> None:
        self._engine, self._store, self._settings = engine, store, settings
        self._lease, self._heartbeat, self._spans = lease, heartbeat, spans
        self._begun = False
        self._room = 0  # bytes that a checkpoint needs

    def run(self) -> bool:
        """True when the job is finished, False when this worker must let go of it."""
        self._spans.phase("build")
        with self._engine.connect() as connection, _needs_services():
            assignment = read_assignment(connection, self._store, self._lease.job_id)
            kept = checkpoints.newest_step(connection, self._lease.job_id)
        if kept < assignment.program.steps:
            self._require_time()  # before the first beat, which would end a process that is late
        else:
            self._heartbeat.lift_limit()
        built = build(self._settings, assignment)
        before = self._untrained(assignment, built)
        self._spans.phase("encode")
        records, owners = self._records(assignment, built)
        self._spans.phase("rehearse")
        outcome = self._train(assignment, built, records, owners)
        self._require_wanted()
        if outcome.ended == "stopped":
            self._require_time()
            return False
        self._heartbeat.lift_limit()
        if outcome.step == 0:
            raise DataPhaseFailed  # every step was paid for by attempts that died before they could keep one
        self._spans.phase("publish")
        with _data_phase():
            self._publish(assignment, built, before)
        self._spans.finish()
        return True

    def _records(self, assignment: Assignment, built: Built) -> tuple[Records, np.ndarray | None]:
        """The file's records, and whose each is, where the unit is the user."""
        with _data_phase():
            with _needs_services():
                rows = read_rows(assignment.rows)
            records = built.task.encode(rows.columns, rows.labels or ())
            owners = None if rows.users is None else np.asarray(rows.users, dtype=np.int64)
        if (assignment.program.unit == "user") != (owners is not None):
            raise Refused("plan_mismatch", "The training file's rows are not kept by the unit of its budget.")
        return records, owners

    def _train(self, assignment: Assignment, built: Built, records: Records, owners: np.ndarray | None) -> Outcome:
        with _needs_services():
            checkpoint = checkpoints.newest(self._engine, self._store, self._lease.job_id)
        self._require_wanted()
        step = 0 if checkpoint is None else read_step(checkpoint)
        self._room = _checkpoint_bytes(built.model) if checkpoint is None else len(checkpoint)
        trainer = get_trainer(assignment.program.method)
        log.info("job %s: goes on from step %d under fence %d", self._lease.job_id, step, self._lease.fence)
        try:
            return run(
                model=built.model,
                task=built.task,
                records=records,
                program=assignment.program,
                begin=partial(trainer.begin, task=assignment.task),
                learns=trainer.learns,
                between=trainer.between,
                authorise=partial(self._authorise, assignment.program),
                save=self._save,
                should_stop=self._should_stop,
                checkpoint=checkpoint,
                owners=owners,
            )
        except (LedgerError, Unavailable):
            raise
        except Exception as error:
            # Before the first authorisation the loop has run on public stand-ins only.
            if self._begun:
                if out_of_memory(error):  # the rehearsal had room for more: as when the kernel ends the process
                    raise Unavailable from error
                raise DataPhaseFailed from error
            if out_of_memory(error):
                raise _does_not_fit() from error
            log.error("job %s: rehearsal failed: %s", assignment.job_id, describe(error))
            raise Refused("not_trainable", _why_not(error)) from error

    def _authorise(self, program: Program, phase: int, steps: int) -> int:
        """Charge before noise: committed before the first of these steps runs; and nothing is charged that could not be
        kept."""
        with _needs_services():
            require_room(self._store, self._room)
        with _needs_services(), self._engine.begin() as connection:
            granted = work.authorise(connection, self._lease, phase, steps)
            if granted:
                done = ends.steps_authorised(connection, self._lease.job_id)
                message = f"Step {done} of {program.steps}: authorised and charged."
                data = {"step": done, "total_steps": program.steps, "phase": program.phases[phase].name}
                append_event(connection, self._lease.job_id, "steps.authorised", message, data)
        self._begun = True
        if granted:
            self._spans.phase("train")
        return granted

    def _save(self, data: bytes) -> None:
        self._room = len(data)
        with _needs_services():
            checkpoints.save(self._engine, self._store, self._lease, read_step(data), data)

    def _should_stop(self) -> bool:
        heartbeat = self._heartbeat
        return draining() or heartbeat.stop_requested or not heartbeat.held or heartbeat.overtime >= 0

    def _require_wanted(self) -> None:
        """Raises StaleFence or StopRequested (for a pause too) when there is no point in going on."""
        if not self._heartbeat.held:
            raise StaleFence(f"the lease on {self._lease.job_id} is lost")
        if self._heartbeat.stop_requested:
            raise StopRequested(f"job {self._lease.job_id} was asked to stop or pause")

    def _require_time(self) -> None:
        """Raises OutOfTime when the job has no time left. One that is trained to its end needs none."""
        if self._heartbeat.overtime >= 0:
            raise OutOfTime

    def _publish(self, assignment: Assignment, built: Built, before: dict[str, float] | None) -> None:
        metrics: dict[str, Any] = {}
        if assignment.evaluation is not None:
            after = self._evaluate(assignment, built)
            metrics = {"validation": {"file": assignment.evaluation.id, **(after or {}), "untrained": before}}
        with self._engine.connect() as connection:
            report = results.privacy_report(connection, assignment, built.base, metrics)
        with _needs_services():
            made = [
                results.store_adapter(self._store, self._lease, assignment, built, report),
                results.store_report(self._store, self._lease, report),
            ]
        self._require_wanted()
        with self._engine.begin() as connection:
            publish(connection, self._lease, assignment.tenant_id, made)

    def _untrained(self, assignment: Assignment, built: Built) -> dict[str, float] | None:
        """What training starts from. A validation file that the model cannot read ends the job here, at no cost."""
        try:
            return self._evaluate(assignment, built)
        except Unavailable:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise _does_not_fit() from error
            log.error("job %s: evaluation failed: %s", assignment.job_id, describe(error))
            why = f"The model cannot be evaluated on the validation file: {type(error).__name__}."
            raise Refused("not_trainable", why) from error

    def _evaluate(self, assignment: Assignment, built: Built) -> dict[str, float] | None:
        """The model as it is now on public rows: untrained, or a noised iterate."""
        if assignment.evaluation is None:
            return None
        with _needs_services():
            rows = read_rows(assignment.evaluation.rows)
        # The file may list the labels in an order of its own.
        places = [assignment.labels.index(label) for label in assignment.evaluation.labels]
        return built.task.metrics(built.model, rows.columns, [places[i] for i in rows.labels or ()])


def _does_not_fit() -> Refused:
    return Refused("out_of_memory", "The model does not fit into this worker's memory.")


def _why_not(error: Exception) -> str:
    """What the engine says about the model is public. Whatever else went wrong may have seen the records, which are
    encoded by then: its words stay out of sight."""
    known = isinstance(error, NotTrainable)
    return f"The method cannot train this model exactly: {shown(str(error)) if known else type(error).__name__}."


def _checkpoint_bytes(model: nn.Module) -> int:
    """About what the first checkpoint needs: the weights, their average and two moments of an optimiser."""
    return 4 * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


@contextmanager
def _needs_services() -> Iterator[None]:
    """Blobs or database. An authorisation whose commit got no answer counts as charged: its steps are not run."""
    try:
        yield
    except STORE_ERRORS as error:
        raise Unavailable from error


@contextmanager
def _data_phase() -> Iterator[None]:
    """Whatever breaks in here may be the rows' doing; the ledger's word and what is away are not."""
    try:
        yield
    except (LedgerError, Unavailable, sa.exc.SQLAlchemyError):
        raise
    except Exception as error:
        raise DataPhaseFailed from error
