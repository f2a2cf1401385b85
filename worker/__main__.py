"""`python -m worker`: one Celery worker and its reconciler, from TACIT_* environment variables.

`python -m worker profile` measures the base models instead; `python -m worker check` tries which methods train them and
says so, a JSON value a line; `python -m worker ping` asks whether the worker on this host answers (for health checks).
"""

import argparse
import json
import os
import socket
import sys
from collections.abc import Mapping

import sqlalchemy as sa
from celery.signals import celeryd_init, worker_shutting_down

from domain.files.files import encrypt_old
from domain.kit.database import UnsafeLogin, make_engine, require_safe_login, require_silo_login
from domain.kit.process import protect
from domain.kit.settings import BadSettings, WorkerSettings, from_environment
from domain.models.allow_list import BaseModelFacts, base_models
from domain.storage.blobs import BadStore, Store, open_store, require_usable
from domain.storage.masters import NoMasterKey
from ledger.guard import TamperedDatabase, require_intact
from worker import intake
from worker.app import make_app
from worker.drain import pass_on
from worker.idle import IdleProfiler
from worker.log import log, set_up
from worker.metrics import serve_metrics
from worker.reconciler import Reconciler

# Inherited by the pool's processes: nothing is fetched while a job runs, and no library reports on its rows.
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "true"}
PING = 10.0  # seconds


def main() -> int:
    """Run until SIGTERM or Ctrl-C; answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "profile", "check", "ping"), default="run")
    parser.add_argument("--again", action="store_true", help="profile: also what has been measured before")
    parser.add_argument("--model", help="check: this one alone")
    arguments = parser.parse_args()
    protect()  # the pool's processes inherit it
    try:
        settings = from_environment(WorkerSettings)
    except BadSettings as error:
        return _refuse(str(error))
    if arguments.what == "ping":
        return _ping(settings)
    set_up()
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=2)
    try:
        with engine.connect() as connection:
            require_safe_login(connection)
            require_intact(connection)
            require_silo_login(connection, settings.silo)
        store = open_store(settings, engine)
        require_usable(store)
        if done := encrypt_old(engine, store):
            log.warning("encrypted %d blobs that an earlier version had stored as they were", done)
        models = base_models(settings)  # may download, where the operator allows it: never later
    except (UnsafeLogin, TamperedDatabase, BadStore, NoMasterKey) as error:
        return _refuse(str(error))
    except sa.exc.OperationalError:
        return _refuse("the database behind TACIT_DATABASE_URL does not answer")
    os.environ.update(QUIET)
    if arguments.what == "profile":
        from worker.profile import profile_models

        profile_models(engine, models.usable, settings.device, again=arguments.again)
        return 0
    if arguments.what == "check":
        usable = {n: model for n, model in models.usable.items() if arguments.model in (None, n)}
        return _check(engine, usable, settings.device)
    return _run(settings, engine, store)


def _run(settings: WorkerSettings, engine: sa.Engine, store: Store) -> int:
    reconciler = Reconciler(engine, store, settings)
    celeryd_init.connect(lambda **_: reconciler.start(), weak=False)
    worker_shutting_down.connect(lambda **_: reconciler.stop(), weak=False)
    worker_shutting_down.connect(pass_on)
    if settings.profile_after > 0:
        profiler = IdleProfiler(settings.profile_after)
        celeryd_init.connect(lambda **_: profiler.start(), weak=False)
        worker_shutting_down.connect(lambda **_: profiler.stop(), weak=False)
    if settings.metrics_port is not None:
        try:
            serve_metrics(settings.metrics_host, settings.metrics_port)
        except OSError as error:
            return _refuse(f"metrics cannot be served on TACIT_METRICS_PORT: {error.strerror}")
    arguments = ["--quiet", "worker", "--pool=prefork", "--loglevel=INFO", f"--hostname=tacit-{os.getpid()}@%h"]
    app = make_app(settings)
    intake.install(app, engine, settings.silo)
    app.worker_main([*arguments, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    return 0


def _check(engine: sa.Engine, models: Mapping[str, BaseModelFacts], device: str) -> int:
    """First what will be tried, then how each went: `trains` is null where this machine could not tell."""
    from worker.profile import TINY, try_out, worth_trying

    wanted = worth_trying(engine, models, device, again=True)
    _say([{"model": model.name, "method": method, "task": task} for model, method, task in wanted])
    for model, method, task in wanted:
        found = try_out(engine, model, method, task, device, TINY)
        refusal = found if isinstance(found, str) else None
        _say({"trains": None if found is None else refusal is None, "because": refusal})
    return 0


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


def _ping(settings: WorkerSettings) -> int:
    """0 when a worker of this host answers over the broker."""
    answers = make_app(settings).control.inspect(timeout=PING).ping() or {}
    return 0 if any(name.endswith(f"@{socket.gethostname()}") for name in answers) else 1


def _refuse(why: str) -> int:
    print(f"The worker does not start: {why}.", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
