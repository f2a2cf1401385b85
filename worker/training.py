"""Building, training and publishing one job, or letting go of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from torch import nn

from domain.files.held_out import NoLots, parted
from domain.jobs.events import append_event
from domain.jobs.quality import measured, quality, together
from domain.jobs.releases import Result, publish
from domain.kit.logs import describe
from domain.kit.settings import WorkerSettings
from domain.storage.blobs import Store, get_bytes, require_room
from domain.storage.rows import FileRows, read_rows
from dpcore.checkpoint import read_step
from dpcore.engine.errors import NotTrainable
from dpcore.estimators.measurement import deviation
from dpcore.machine.micro_batches import Stopped, out_of_memory
from dpcore.methods import get_trainer
from dpcore.run import HeldOutUnits, Outcome, run
from dpcore.tasks import AnyRecords
from dpcore.terms.program import Phase, Program
from dpcore.terms.reasons import shown
from ledger import work
from ledger.errors import (
    LedgerError,
    StaleFence,
    StopRequested,
)
from ledger.work import Lease
from worker import auditing, checkpoints, ends, results, synthetic
from worker.assignment import Assignment, read_assignment
from worker.build import Built, build
from worker.drain import draining
from worker.errors import STORE_ERRORS, DataPhaseFailed, OutOfTime, Refused, Unavailable
from worker.federated.waiting import wait_for
from worker.lease import Heartbeat
from worker.log import log
from worker.synthetic import Sampled, Sampling
from worker.tracing import Spans

T = TypeVar("T")


class Training:
    """One attempt at a job on one private file, once the lease is held."""

    def __init__(
        self,
        engine: sa.Engine,
        store: Store,
        settings: WorkerSettings,
        lease: Lease,
        heartbeat: Heartbeat,
        spans: Spans,
    ) -> None:
        self.engine, self.store, self.settings = engine, store, settings
        self.lease, self.heartbeat, self.spans = lease, heartbeat, spans
        self.begun = False
        self.room = 0  # bytes that a checkpoint needs

    def run(self) -> bool:
        """True when the job is finished, False when this worker must let go of it."""
        self.spans.phase("build")
        with self.engine.connect() as connection, needs_services():
            assignment = read_assignment(connection, self.store, self.lease.job_id)
            kept = checkpoints.newest_step(connection, self.lease.job_id)
        if kept < assignment.program.steps:
            self.require_time()  # before the first beat, which would end a process that is late
        else:
            self.heartbeat.lift_limit()
        built = build(self.settings, assignment)
        sampling = synthetic.prepared(assignment, built)
        before = self.untrained(assignment, built)
        self._audit(assignment)
        self.spans.phase("encode")
        trained_on, held_out = self.rows(assignment)
        records, owners = self.encoded(assignment, built, trained_on)
        self.spans.phase("rehearse")
        outcome = self._train(assignment, built, records, owners, held_out)
        self.require_wanted()
        if outcome.ended == "stopped":
            self.require_time()
            return False
        self.heartbeat.lift_limit()
        if outcome.step == 0:
            raise DataPhaseFailed  # every step was paid for by attempts that died before they could keep one
        self.spans.phase("publish")
        with data_phase():
            self._publish(assignment, built, before, sampling, outcome.measured)
        self.spans.finish()
        return True

    def _audit(self, assignment: Assignment) -> None:
        """If it was asked for; before a row is read, and before anything is charged."""
        if not assignment.audit:
            return
        self.spans.phase("audit")
        try:
            with needs_services():
                auditing.audit(self.engine, self.lease, assignment, self.should_stop)
        except Stopped:
            self.require_going()
            raise Unavailable("the audit was stopped") from None
        self.require_going()

    def records(self, assignment: Assignment, built: Built) -> tuple[AnyRecords, np.ndarray | None]:
        """The file's records to train on, and whose each is, where the unit is the user."""
        trained_on, _ = self.rows(assignment)
        return self.encoded(assignment, built, trained_on)

    def rows(self, assignment: Assignment) -> tuple[FileRows, FileRows]:
        """The file's rows to train on, and those that its budget holds out: the one place where rows come from."""
        with data_phase():
            assert assignment.rows is not None
            with needs_services():
                rows = read_rows(assignment.rows)
        try:
            return parted(rows, assignment.budget_id, assignment.held_out)
        except NoLots as error:
            message = "The training file is of a version that held nothing out, and its budget does: upload it again."
            raise Refused("not_trainable", message) from error

    def encoded(self, assignment: Assignment, built: Built, rows: FileRows) -> tuple[AnyRecords, np.ndarray | None]:
        """Rows as records, and whose each is, where the unit is the user."""
        with data_phase():
            places = [assignment.labels.index(label) for label in assignment.own_labels]
            records = built.task.encode(rows.columns, [places[i] for i in rows.labels or ()])
            owners = None if rows.users is None else np.asarray(rows.users, dtype=np.int64)
        if (assignment.program.unit == "user") != (owners is not None):
            raise Refused("plan_mismatch", "The training file's rows are not kept by the unit of its budget.")
        return records, owners

    def _train(
        self,
        assignment: Assignment,
        built: Built,
        records: AnyRecords,
        owners: np.ndarray | None,
        held_out: FileRows,
    ) -> Outcome:
        measures = assignment.program.measurement is not None
        others = HeldOutUnits(*self.encoded(assignment, built, held_out)) if measures else None
        with needs_services():
            checkpoint = checkpoints.newest(self.engine, self.store, self.lease.job_id)
        self.require_wanted()
        step = 0 if checkpoint is None else read_step(checkpoint)
        self.room = _checkpoint_bytes(built.model) if checkpoint is None else len(checkpoint)
        trainer = get_trainer(assignment.program.method)
        log.info("job %s: goes on from step %d under fence %d", self.lease.job_id, step, self.lease.fence)
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
                save=self.save,
                should_stop=self.should_stop,
                checkpoint=checkpoint,
                owners=owners,
                held_out=others,
            )
        except (LedgerError, Unavailable):
            raise
        except Exception as error:
            # Before the first authorisation the loop has run on public stand-ins only.
            if self.begun:
                if out_of_memory(error):  # the rehearsal had room for more: as when the kernel ends the process
                    raise Unavailable from error
                raise DataPhaseFailed from error
            if out_of_memory(error):
                raise does_not_fit() from error
            log.error("job %s: rehearsal failed: %s", assignment.job_id, describe(error))
            raise Refused("not_trainable", why_not(error)) from error

    def _authorise(self, program: Program, phase: int, steps: int) -> int:
        """Charge before noise: committed before the first of these steps runs; and nothing is charged that could not be
        kept."""
        with needs_services():
            require_room(self.store, self.room)
        with needs_services(), self.engine.begin() as connection:
            granted = work.authorise(connection, self.lease, phase, steps)
            if granted:
                self.tell_authorised(connection, program, phase)
        self.begun = True
        if granted:
            self.spans.phase("train")
        return granted

    def save(self, data: bytes) -> None:
        self.room = len(data)
        with needs_services():
            checkpoints.save(self.engine, self.store, self.lease, read_step(data), data)

    def should_stop(self) -> bool:
        heartbeat = self.heartbeat
        return draining() or heartbeat.stop_requested or not heartbeat.held or heartbeat.overtime >= 0

    def require_wanted(self) -> None:
        """Raises StaleFence or StopRequested (for a pause too) when there is no point in going on."""
        if not self.heartbeat.held:
            raise StaleFence(f"the lease on {self.lease.job_id} is lost")
        if self.heartbeat.stop_requested:
            raise StopRequested(f"job {self.lease.job_id} was asked to stop or pause")

    def require_time(self) -> None:
        """Raises OutOfTime when the job has no time left. One that is trained to its end needs none."""
        if self.heartbeat.overtime >= 0:
            raise OutOfTime

    def require_going(self) -> None:
        """Raises when there is no point in waiting for others any more, or this worker was told to end."""
        self.require_wanted()
        self.require_time()
        if draining():
            raise Unavailable("this worker was told to end")

    def others(self, look: Callable[[], T | None]) -> T | None:
        """What `look` answers, as soon as it is something; None when this process is to be given back meanwhile."""
        with self.heartbeat.waiting():
            return wait_for(self.settings, look, self.require_going)

    def let_wait(self) -> bool:
        """Give the process back until others have come: no failure, and not the job's end."""
        with needs_services(), self.engine.begin() as connection:
            work.excuse_waiting(connection, self.lease)
        return False

    def tell_authorised(self, connection: sa.Connection, program: Program, phase: int) -> None:
        """An event with the steps that are authorised by now."""
        done = ends.steps_authorised(connection, self.lease.job_id)
        message = f"Step {done} of {program.steps}: authorised and charged."
        data = {"step": done, "total_steps": program.steps, "phase": program.phases[phase].name}
        append_event(connection, self.lease.job_id, "steps.authorised", message, data)

    def _publish(
        self,
        assignment: Assignment,
        built: Built,
        before: dict[str, Any] | None,
        sampling: Sampling | None = None,
        sums: tuple[float, float] | None = None,
    ) -> None:
        metrics: dict[str, Any] = {}
        if assignment.evaluation is not None:
            after = self.evaluate(assignment, built)
            metrics = {"validation": {"file": assignment.evaluation.id, **(after or {}), "untrained": before}}
        public = quality(metrics["validation"]) if metrics else None
        private = None
        if assignment.program.measurement is not None:
            private = self._measured(assignment, assignment.program.measurement, sums)
            metrics["measured"] = private
        with self.engine.connect() as connection:
            report = self.report(connection, assignment, built, metrics)
        with needs_services():
            made = [results.store_adapter(self.store, self.lease, assignment, built, report)]
        text = None if sampling is None else self._sample(assignment, built, sampling, made[0])
        if text is not None:
            report["synthetic"] = text.report()
        with needs_services():
            made.append(results.store_report(self.store, self.lease, report))
            made += [] if text is None else text.store(self.store, self.lease, report)
        self.require_wanted()
        with self.engine.begin() as connection:
            publish(connection, self.lease, assignment.tenant_id, made, together(public, private))
            if text is not None and text.data is None:
                message = f"No text was sampled: {text.why}. The adapter is released all the same."
                append_event(connection, self.lease.job_id, "synthetic.failed", message)

    def _sample(self, assignment: Assignment, built: Built, sampling: Sampling, adapter: Result) -> Sampled:
        """From the adapter as it is stored. Raises as `require_wanted` does, or Unavailable where this worker was told
        to end: the next one samples again, the same text, and nothing of it is paid for."""
        try:
            with needs_services(), self.engine.connect() as connection:
                attempts = checkpoints.fruitless(connection, self.lease)
                archive = get_bytes(self.store, adapter.stored.name)
            most = min(synthetic.ATTEMPTS, self.settings.max_attempts - 1)  # the last one publishes what there is
            return synthetic.sampled(sampling, assignment, built, archive, attempts, most, self.should_stop)
        except Stopped:
            self.require_wanted()
            self.let_wait()  # no failure of this attempt
            raise Unavailable("this worker was told to end") from None

    def _measured(
        self, assignment: Assignment, phase: Phase, sums: tuple[float, float] | None
    ) -> dict[str, Any] | None:
        """What the noised sums say; None where they were paid for and lost."""
        share = (assignment.privacy.get("measure") or {}).get("share")
        return measured(phase, sums, deviation(phase), share)

    def report(
        self, connection: sa.Connection, assignment: Assignment, built: Built, metrics: dict[str, Any]
    ) -> dict[str, Any]:
        """What the job cost, and what that means."""
        return results.privacy_report(connection, assignment, built.base, metrics)

    def untrained(self, assignment: Assignment, built: Built) -> dict[str, Any] | None:
        """What training starts from. A validation file that the model cannot read ends the job here, at no cost."""
        try:
            return self.evaluate(assignment, built)
        except Unavailable:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise does_not_fit() from error
            log.error("job %s: evaluation failed: %s", assignment.job_id, describe(error))
            why = f"The model cannot be evaluated on the validation file: {type(error).__name__}."
            raise Refused("not_trainable", why) from error

    def evaluate(self, assignment: Assignment, built: Built) -> dict[str, Any] | None:
        """The model as it is now on public rows: untrained, or a noised iterate."""
        if assignment.evaluation is None:
            return None
        with needs_services():
            rows = read_rows(assignment.evaluation.rows)
        # The file may list the labels in an order of its own.
        places = [assignment.labels.index(label) for label in assignment.evaluation.labels]
        return built.task.metrics(built.model, rows.columns, [places[i] for i in rows.labels or ()])


def does_not_fit() -> Refused:
    return Refused("out_of_memory", "The model does not fit into this worker's memory.")


def why_not(error: Exception) -> str:
    """What the engine says about the model is public. Whatever else went wrong may have seen the records, which are
    encoded by then: its words stay out of sight."""
    known = isinstance(error, NotTrainable)
    return f"The method cannot train this model exactly: {shown(str(error)) if known else type(error).__name__}."


def _checkpoint_bytes(model: nn.Module) -> int:
    """About what the first checkpoint needs: the weights, their average and two moments of an optimiser."""
    return 4 * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


@contextmanager
def needs_services() -> Iterator[None]:
    """Blobs or database. An authorisation whose commit got no answer counts as charged: its steps are not run."""
    try:
        yield
    except STORE_ERRORS as error:
        raise Unavailable from error


@contextmanager
def data_phase() -> Iterator[None]:
    """Whatever breaks in here may be the rows' doing; the ledger's word and what is away are not."""
    try:
        yield
    except (LedgerError, Unavailable, sa.exc.SQLAlchemyError):
        raise
    except Exception as error:
        raise DataPhaseFailed from error
