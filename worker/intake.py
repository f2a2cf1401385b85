"""Which hints reach the pool: those for a job that is to be had, and none before a process stands ready for it.

A process ends with the hint that it was given, and the next one takes seconds to start. So a hint for a job that is
over, held or in other hands is dropped here, in the worker itself, at the price of one look into the database.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from celery import Celery
from celery.bootsteps import StartStopStep
from celery.worker.consumer.tasks import Tasks

from domain.jobs.hints import TASK
from worker.lease import worth_claiming
from worker.log import log

AWAY = 5.0  # seconds until the next look when the database has not answered
_NO_ANSWER = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
Strategy = Callable[..., None]
"""What Celery does with a message: takes (message, body, ack, reject, callbacks)."""


def install(app: Celery, engine: sa.Engine, silo: str | None) -> None:
    """Have the worker of this application, which works for this silo, look before it takes a job up."""

    class Intake(StartStopStep):
        """Stops and starts with the connection to the broker, as the channel and the strategies do."""

        requires = (Tasks,)
        again: Any = None
        """The timer's entry for the next look at a hint in hand."""

        def start(self, consumer: Any) -> None:
            qos = consumer.task_consumer.channel.qos
            has_room = qos.can_consume  # Celery's own: no other hint is in hand, and no job
            qos.can_consume = lambda: has_room() and stands_ready(consumer.pool)

            def later(take: Strategy, *arguments: Any) -> None:
                self.again = consumer.timer.call_after(AWAY, take, arguments)

            strategy = consumer.strategies[TASK]
            consumer.strategies[TASK] = only_worthwhile(strategy, engine, silo, consumer.connection_errors, later)

        def stop(self, consumer: Any) -> None:
            """A hint in hand was of the connection that ends."""
            if self.again is not None:
                self.again.cancel()

    app.steps["consumer"].add(Intake)


def only_worthwhile(
    strategy: Strategy,
    engine: sa.Engine,
    silo: str | None,
    broker_errors: tuple[type[Exception], ...],
    later: Callable[..., None],
) -> Strategy:
    """The strategy for hints whose job is to be had; any other is acknowledged, and that is all."""

    def take(message: Any, body: Any, ack: Callable[..., None], reject: Callable[..., None], callbacks: Any) -> None:
        try:
            (job_id, *_), *_ = message.payload
            with engine.connect() as connection:
                wanted = worth_claiming(connection, job_id, silo)
        except _NO_ANSWER as error:
            # A process would get no answer either, and the hint that it used up would be missed for minutes. In hand it
            # keeps its place, and until it is acknowledged no other is taken; should this worker end, it is sent again.
            log.warning("the database is away, hints wait: %s", type(error).__name__)
            later(take, message, body, ack, reject, callbacks)
            return
        except Exception:  # noqa: BLE001  # no hint of ours: Celery or the process says what is wrong with it
            wanted = True
        if wanted:
            strategy(message, body, ack, reject, callbacks)
        else:
            ack(log, broker_errors)

    return take


def stands_ready(pool: Any) -> bool:
    """Whether one of a prefork pool's processes has started and may be given a task. One that has had all of its tasks
    stays for a second, and until the next has started a hint is better off on the queue: its job may be cancelled
    meanwhile, and another worker may be ready for it."""
    processes = pool._pool
    most = processes._maxtasksperchild
    return any(
        process.inqW_fd in processes._all_inqueues
        and (most is None or processes._on_ready_counters[process.pid].value < most)
        for process in processes._pool
    )
