"""`python -m worker`: one Celery worker and its reconciler, from TACIT_* environment variables."""

import os
import sys

import sqlalchemy as sa
from celery.signals import celeryd_init, worker_shutting_down
from pydantic import ValidationError

from domain.blobs import open_store
from domain.database import UnsafeLogin, make_engine, require_safe_login
from domain.settings import WorkerSettings
from ledger.guard import TamperedDatabase, require_intact
from worker.app import make_app
from worker.drain import pass_on
from worker.reconciler import Reconciler

# Inherited by the pool's processes: nothing is fetched while a job runs, and no library reports on its rows.
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "true"}


def main() -> int:
    """Run until SIGTERM or Ctrl-C; answers the exit status."""
    try:
        settings = WorkerSettings()  # type: ignore[call-arg]  # from the environment
    except ValidationError as error:
        return _refuse("; ".join(f"TACIT_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()))
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=2)
    try:
        with engine.connect() as connection:
            require_safe_login(connection)
            require_intact(connection)
    except (UnsafeLogin, TamperedDatabase) as error:
        return _refuse(str(error))
    except sa.exc.OperationalError:
        return _refuse("the database behind TACIT_DATABASE_URL does not answer")
    os.environ.update(QUIET)
    reconciler = Reconciler(engine, open_store(settings.blobs), settings)
    celeryd_init.connect(lambda **_: reconciler.start(), weak=False)
    worker_shutting_down.connect(lambda **_: reconciler.stop(), weak=False)
    worker_shutting_down.connect(pass_on)
    arguments = ["worker", "--pool=prefork", "--loglevel=INFO", f"--hostname=tacit-{os.getpid()}@%h"]
    make_app(settings).worker_main([*arguments, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    return 0


def _refuse(why: str) -> int:
    print(f"The worker does not start: {why}.", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
