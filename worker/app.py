"""The Celery application of a worker, made from settings by whoever starts it."""

from celery import Celery

from domain.jobs.hints import BROKER_OPTIONS, queue_of
from domain.kit.settings import WorkerSettings


def make_app(settings: WorkerSettings) -> Celery:
    """One job at a time, each in a fresh process: what a job leaves behind in memory ends with it.

    Hints are acknowledged early and never redelivered: the lease in the database says who works on a job, and the
    reconciler sends a new hint for every job that nobody works on.
    """
    app = Celery("tacit", broker=settings.broker_url.get_secret_value(), include=["worker.tasks", "worker.about"])
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=queue_of(settings.silo),
        task_create_missing_queues=False,
        worker_pool_start_method="spawn",  # CUDA does not survive a fork
        worker_concurrency=1,
        worker_max_tasks_per_child=1,
        worker_proc_alive_timeout=120.0,  # a fresh interpreter on a busy machine takes its time
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the lease decides, not the broker
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # however long the broker is away
        broker_transport_options={
            **BROKER_OPTIONS,
            "socket_timeout": 60,  # longer than the blocking wait for a message
            "health_check_interval": 25,
        },
    )
    return app
