"""What a hint starts."""

from typing import Any

import sqlalchemy as sa
from celery import shared_task
from celery.signals import worker_process_init

from domain.jobs.hints import TASK
from domain.kit.database import make_engine
from domain.kit.logs import about, describe
from domain.kit.metrics import MINUTE
from domain.kit.settings import WorkerSettings, from_environment
from domain.kit.tracing import exporting
from worker.drain import draining, listen
from worker.lease import worth_claiming
from worker.log import log


@worker_process_init.connect
def load(**_: Any) -> None:
    """Import torch while there is no job yet: it takes seconds, and a hint waits for none of them."""
    import worker.attempt  # noqa: F401


@shared_task(name=TASK)
def run_job(job_id: str) -> None:
    """Work on a job if it is to be had; a hint for any other job is dropped.

    Never raises: Celery would log the message of the error, and it may quote a row.
    """
    listen()
    settings = from_environment(WorkerSettings)
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=2)
    with about(job_id=job_id):
        try:
            with engine.connect() as connection:
                wanted = worth_claiming(connection, job_id, settings.silo)
            if wanted and not draining():
                from worker.attempt import attempt

                with exporting(settings.otlp_endpoint, "tacit-worker", every=MINUTE) as tracer:
                    attempt(engine, settings, job_id, tracer)
        except sa.exc.SQLAlchemyError as error:
            log.warning("job %s: the database is away, the job stays: %s", job_id, describe(error))
        except Exception as error:  # noqa: BLE001
            log.error("job %s: the attempt ended, the job stays: %s", job_id, describe(error))
        finally:
            engine.dispose()
