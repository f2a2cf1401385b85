"""Jobs that nobody works on: hinted at again, or brought to their end. What a hint or a worker lost is found here."""

import threading
from collections.abc import Callable

import sqlalchemy as sa

from domain.federated.rounds import due, left_behind
from domain.jobs import life
from domain.jobs.expiry import end_expired
from domain.jobs.hints import HINT_ERRORS, send_hint, waiting
from domain.jobs.pauses import show_paused
from domain.kit.logs import describe
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job
from domain.storage.blobs import Store
from ledger.errors import LedgerError
from ledger.tables import reservation, work
from ledger.work import LONGEST_LEASE
from worker import checkpoints, ends
from worker.errors import Refused
from worker.federated.ending import end_left_behind
from worker.lease import FROZEN, of_silo
from worker.log import log
from worker.metrics import LOOKS

FREE_ATTEMPTS = 3  # that may get nowhere before the next ones are spaced out
LONGEST_PAUSE = 300  # seconds between two attempts that got nowhere
LONGEST_DOUBT = 3600  # seconds before a hint is doubled although the queue moves
AT_ONCE = 100  # jobs in one look

GAVE_UP = Refused("worker_lost", "The job could not be started: its worker was lost again and again.")

_now = sa.func.clock_timestamp()
_unleased = sa.or_(work.c.lease_until.is_(None), work.c.lease_until <= _now)
_waits = sa.exists().where(reservation.c.job_id == job.c.id, reservation.c.waits)
_open = job.c.status.in_(life.LIVE)
_paused = work.c.paused_at.is_not(None)


class Reconciler:
    """A thread that looks every few seconds. Any number of workers may run one."""

    def __init__(self, engine: sa.Engine, store: Store, settings: WorkerSettings) -> None:
        self._engine, self._store, self._settings = engine, store, settings
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; a look that has begun is finished."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(self._settings.reconcile_seconds):
            try:
                reconcile(self._engine, self._store, self._settings)
            except Exception as error:  # noqa: BLE001  # whatever it was, the next look must come
                log.warning("the look at open jobs failed: %s", describe(error))
                LOOKS.labels("failed").inc()
            else:
                LOOKS.labels("done").inc()


def reconcile(engine: sa.Engine, store: Store, settings: WorkerSettings) -> None:
    """One look at all open jobs that this worker may touch: those of its silo, or of none."""
    own = of_silo(settings.silo)
    _forget_times_ahead(engine, own)
    for job_id in _open_jobs(engine, own, work.c.stop_requested):
        _end(engine, job_id, lambda c, job_id: ends.cancel(c, job_id, None))
    dead = _paused, job.c.status_detail == life.PAUSING  # the worker died before it let go
    for job_id in _open_jobs(engine, own, *dead):
        _end(engine, job_id, show_paused)
    end_expired(engine, own)
    for job_id in _open_jobs(engine, own, checkpoints.tries >= settings.max_attempts, ~_paused):
        _end(engine, job_id, lambda c, job_id: ends.fail(c, job_id, None, GAVE_UP))
    for job_id in _open_jobs(engine, own, left_behind()):
        _end(engine, job_id, end_left_behind)
    _forget_hints_for_frozen(engine, own)
    _hint(engine, settings, own)
    checkpoints.tidy(engine, store, own)


def _forget_times_ahead(engine: sa.Engine, own: sa.ColumnElement[bool]) -> None:
    """What was written before the database's clock was set back: the lease of a worker that has died would hold, and a
    lost hint be believed, for as long as that. A worker that is alive takes its job up again."""
    with engine.begin() as connection:
        ahead = work.c.lease_until > _now + sa.cast(LONGEST_LEASE, sa.Interval)
        connection.execute(sa.update(work).where(own, ahead).values(lease_until=_now))
        life.forget_hints(connection, sa.and_(_whose_work(own), job.c.hinted_at > _now))


def _forget_hints_for_frozen(engine: sa.Engine, own: sa.ColumnElement[bool]) -> None:
    """They are dropped, so that others are due as soon as the budget thaws."""
    with engine.begin() as connection:
        life.forget_hints(connection, sa.and_(_whose_work(own), FROZEN))


def _end(engine: sa.Engine, job_id: str, end: Callable[[sa.Connection, str], None]) -> None:
    """Bring a job that nobody works on to its end."""
    try:
        with engine.begin() as connection:
            end(connection, job_id)
    except LedgerError as error:  # claimed or settled in the meantime
        log.info("job %s: left alone: %s", job_id, type(error).__name__)


def _hint(engine: sa.Engine, settings: WorkerSettings, own: sa.ColumnElement[bool]) -> None:
    """Send a hint where one is missing.

    A lease that ended after the last hint means that the hint was used up: a new one goes out, later and later while
    attempts keep no checkpoint. Otherwise the hint may be lost, or still wait behind a long job: it is doubled soon
    only while the queue is empty, so that hints do not pile up.
    """
    broker = settings.broker_url.get_secret_value()
    try:
        doubt = LONGEST_DOUBT if waiting(broker, settings.silo) else 2 * settings.lease_seconds
    except HINT_ERRORS as error:
        log.warning("the broker is away: %s", type(error).__name__)
        return
    pause = sa.case(
        (
            checkpoints.tries > FREE_ATTEMPTS,
            sa.func.least(
                LONGEST_PAUSE,
                settings.reconcile_seconds * sa.func.power(2, sa.func.least(checkpoints.tries - FREE_ATTEMPTS, 20)),
            ),
        ),
        else_=0,
    )
    used_up = sa.and_(
        work.c.lease_until.is_not(None),
        job.c.hinted_at < work.c.lease_until,
        work.c.lease_until <= _now - _seconds(pause),
    )
    may_be_lost = sa.and_(
        sa.or_(work.c.lease_until.is_(None), job.c.hinted_at >= work.c.lease_until),
        job.c.hinted_at < _now - _seconds(doubt),
    )
    missing = sa.or_(job.c.hinted_at.is_(None), used_up, may_be_lost)
    with engine.begin() as connection:
        wanted = _select(own, _unleased, ~work.c.stop_requested, ~FROZEN, ~_waits, ~_paused, due(), missing)
        wanted = wanted.with_for_update(of=job, skip_locked=True)
        jobs = connection.execute(wanted).scalars().all()
        life.hinted(connection, jobs)
    for i, job_id in enumerate(jobs):
        try:
            send_hint(broker, job_id, settings.silo)
        except HINT_ERRORS as error:
            log.warning("the broker is away: %s", type(error).__name__)
            with engine.begin() as connection:
                life.forget_hints(connection, job.c.id.in_(jobs[i:]))
            return


def _whose_work(own: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Of a job: what `own` says of its work."""
    return sa.exists().where(work.c.job_id == job.c.id, own)


def _open_jobs(engine: sa.Engine, *conditions: sa.ColumnElement[bool]) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(_select(_unleased, *conditions)).scalars())


def _select(*conditions: sa.ColumnElement[bool]) -> sa.Select[str]:
    return (
        sa.select(job.c.id)
        .join(work, work.c.job_id == job.c.id)
        .where(_open, *conditions)
        .order_by(job.c.created_at, job.c.id)
        .limit(AT_ONCE)
    )


def _seconds(amount: sa.ColumnElement[float] | float) -> sa.ColumnElement[object]:
    return sa.func.make_interval(0, 0, 0, 0, 0, 0, sa.cast(amount, sa.Double))
