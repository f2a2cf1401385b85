"""Queue hints: 'this job may be worth a look'. The database row is the job; a hint may be lost, late or doubled."""

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

TASK = "tacit.run_job"
QUEUE = "gpu"
"""Of jobs whose rows lie in no silo."""

HINT_ERRORS: tuple[type[Exception], ...] = (OperationalError, KombuError, RedisError, OSError)
"""What a broker that is away may raise; a caller goes on without, the reconciler sends the hint again."""

BROKER_OPTIONS: dict[str, Any] = {
    # Every process on one broker must agree on these two, or they look into different queues and redeliver too early.
    "global_keyprefix": "tacit:",
    "visibility_timeout": 7 * 86400,
    "socket_keepalive": True,
    "socket_connect_timeout": 5,
}


def queue_of(silo: str | None) -> str:
    """The queue of the workers of a silo, or of those that work for none."""
    return QUEUE if silo is None else f"silo-{silo}"


def silo_of_queue(queue: str) -> str | None:
    """Whose workers take from a queue: the other way round."""
    return None if queue == QUEUE else queue.removeprefix("silo-")


def send_hint(broker_url: str, job_id: str, silo: str | None = None) -> None:
    """Put a hint on the queue of the job's silo. The message is the job's id and nothing else. Raises one of
    HINT_ERRORS in seconds."""
    sender(broker_url).send_task(TASK, args=[job_id], queue=queue_of(silo), retry=False, ignore_result=True)


def redis_url(broker_url: str) -> str | None:
    """The broker as redis-py writes it; None for one that is no Redis of its own."""
    url = urlsplit(broker_url)
    if url.scheme == "redis+socket":
        database = parse_qs(url.query).get("virtual_host", ["0"])[0]
        return f"unix://{url.netloc}{url.path}?db={database}"
    return broker_url if url.scheme in ("redis", "rediss") else None


def waiting(broker_url: str, silo: str | None = None) -> int:
    """Hints on a silo's queue that no worker has taken. Raises one of HINT_ERRORS in seconds."""
    with sender(broker_url).connection_for_write() as connection:
        return int(connection.default_channel.queue_declare(queue_of(silo)).message_count)


@lru_cache(maxsize=4)
def sender(broker_url: str) -> Celery:
    """A Celery application that only sends."""
    app = Celery("tacit.hints", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        result_backend=None,
        broker_transport_options={**BROKER_OPTIONS, "socket_timeout": 5, "max_retries": 1},
        broker_connection_timeout=5,
    )
    return app
