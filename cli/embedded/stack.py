"""The whole stack on one machine: what starts in which order, and how it stops."""

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli.embedded import lock, postgres, redis, roles, secrets, services
from cli.embedded.errors import StackError
from cli.embedded.processes import BEAT, Process, marked, tail
from cli.embedded.supervisor import Kept, keep
from domain.access.bootstrap import FIRST_TENANT
from domain.kit.process import protect

DATABASE = "tacit"
API_START = 120.0  # seconds until the API must answer
API_GRACE = 10.0  # seconds for requests under way
WORKER_GRACE = 90.0  # seconds for a job to stop at its next step, checkpoint and settle
ORPHAN_GRACE = 15.0  # the same for what a killed `tacit up` left; a fence makes a late worker harmless
LOG_LIMIT = 16 * 2**20  # bytes, checked at each start
Say = Callable[[str], None]


class StopSignal(BaseException):
    """A signal asked to stop."""


@dataclass
class Stack:
    """One data folder and the address that it is served on."""

    data: Path
    host: str
    port: int
    say: Say
    workers: int = 1
    kept: dict[str, Kept] = field(default_factory=dict)
    hurry: bool = False

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104  (to reach it from here)
        return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{self.port}"

    def run(self, ready: Callable[[str | None], None]) -> None:
        """Start everything, call `ready(first admin key or None)`, keep it running until a signal, stop in order.

        Raises StackError when something on this machine is in the way.
        """
        protect()  # every server is a child of this process
        prepare(self.data)
        with lock.hold(self.data):
            handle(self._asked)
            try:
                ready(self._start())
                keep(self.kept.values(), self.say)
            except StopSignal:
                self.say("Stopping: api, worker, broker, database. Ctrl-C again does not wait for the job.")
            finally:
                self._ignore_or_hurry()
                self._stop()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self._ignore_or_hurry()
        raise StopSignal

    def _ignore_or_hurry(self) -> None:
        """From now on a signal only shortens the waiting."""
        handle(lambda *_: setattr(self, "hurry", True))

    def _start(self) -> str | None:
        end_orphans(self.data, self.say)
        check_port(self.host, self.port)
        logs = self.data / "logs"
        known = secrets.load(self.data)
        database = self._begin(
            "database",
            lambda: (
                postgres.start(
                    self.data / "postgres", password=known.superuser_password, log=_log(logs, "postgres")
                ).process
            ),
        )
        self._begin("broker", lambda: redis.start(self.data / "redis", log=_log(logs, "redis")).process)
        database_server = postgres.live(self.data / "postgres")
        if database_server is None:
            raise StackError(f"{database.name} ended while starting: {logs}")
        first_key = self._migrate(database_server, known)
        secrets.save(_master_key_file(self.data), known.master_key)
        address = ("--host", self.host, "--port", str(self.port))
        for number, name in enumerate(self._worker_names()):
            environment = worker_environment(self.data, number)
            worker = services.ServiceProcess(name, "worker", (), environment, _log(logs, name))
            self._begin(name, worker.start)
        api = services.ServiceProcess("api", "api", address, api_environment(self.data), _log(logs, "api"))
        self._begin(api.name, api.start)
        self._wait_for_api(logs / "api.log")
        (self.data / "run" / "address").write_text(self.url)
        return first_key

    def _worker_names(self) -> list[str]:
        return ["worker", *(f"worker-{number}" for number in range(2, self.workers + 1))]

    def _begin(self, name: str, start: Callable[[], Process]) -> Kept:
        self.kept[name] = Kept(name, start)
        self.kept[name].begin()
        return self.kept[name]

    def _migrate(self, server: postgres.Postgres, known: secrets.Secrets) -> str | None:
        """The database at this version, its roles, and the first admin key where there is none yet."""
        from domain.access.bootstrap import create_first_key
        from migrations import found, upgrade

        roles.establish(server, known, DATABASE)
        admin_url = server.url(roles.ADMIN, known.admin_password, DATABASE)
        upgrade(admin_url)
        for line in found(admin_url):
            self.say(f"An upgrade found something wrong: {line}")
        return create_first_key(
            admin_url, bytes.fromhex(known.key_pepper), keep=lambda key: secrets.save(key_file(self.data), key)
        )

    def _wait_for_api(self, log: Path) -> None:
        process = self.kept["api"].process
        deadline = time.monotonic() + API_START
        with httpx.Client(trust_env=False, timeout=5) as client:
            while process is not None and process.running() and time.monotonic() < deadline:
                try:
                    if client.get(f"{self.url}/healthz").status_code == httpx.codes.OK:
                        return
                except httpx.HTTPError:  # not yet listening
                    pass
                time.sleep(BEAT)
        raise StackError(f"The API did not come up. The end of {log}:\n{tail(log)}")

    def _stop(self) -> None:
        """The reverse order, by what runs on the folder, so that a start cut short is undone as well."""
        (self.data / "run" / "address").unlink(missing_ok=True)
        workers = self._worker_names()
        for name in workers[1:]:  # all of them stop their jobs at once
            if (kept := self.kept.get(name)) is not None and kept.process is not None:
                kept.process.send(signal.SIGTERM)
        for name, grace in (("api", API_GRACE), *((name, WORKER_GRACE) for name in workers)):
            if (kept := self.kept.get(name)) is not None and kept.process is not None:
                self._end(kept.process, grace)
        end_all(self.data, signal.SIGKILL)  # what a killed worker or API left
        stop_servers(self.data)

    def _end(self, process: Process, grace: float) -> None:
        process.send(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while not process.wait(BEAT):
            if self.hurry or time.monotonic() > deadline:
                process.stop(signal.SIGKILL, 5)
                return


def worker_environment(data: Path, number: int = 0) -> dict[str, str]:
    """The variables of a worker of the stack that runs on `data`, numbered from 0. Raises StackError when none does."""
    values = _shared_values(data, roles.WORKER, _of_running(data).worker_password)
    return services.worker_environment(data, values, number)


def api_environment(data: Path) -> dict[str, str]:
    """The variables of the API of the stack that runs on `data`. Raises StackError when none does."""
    known = _of_running(data)
    own = {
        "TACIT_KEY_PEPPER": known.key_pepper,
        "TACIT_FINGERPRINT_KEY": known.fingerprint_key,
        "TACIT_SIGNING_KEY": known.signing_key,
        "TACIT_POLICY_KEY": _public_half(known.policy_key),
        "TACIT_WITNESS": str(data / "witness" / "heads.jsonl"),
        "TACIT_OPERATOR_TENANT": os.environ.get("TACIT_OPERATOR_TENANT", FIRST_TENANT),
    }
    return services.api_environment(data, _shared_values(data, roles.API, known.api_password) | own)


def _shared_values(data: Path, login: str, password: str) -> dict[str, str]:
    """What the API and the worker both need; each has its own login."""
    database, broker = postgres.live(data / "postgres"), redis.live(data / "redis")
    if database is None or broker is None:
        raise StackError(f"no stack runs on {data}; start it with `tacit up`")
    return {
        "TACIT_DATABASE_URL": database.url(login, password, DATABASE),
        "TACIT_BROKER_URL": broker.url,
        "TACIT_BLOBS": str(data / "blobs"),
        "TACIT_MASTER_KEY_FILE": str(_master_key_file(data)),
    }


def _master_key_file(data: Path) -> Path:
    return data / "secrets" / "master-key"


def handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Install the handler for what asks a program to stop; `nohup` keeps its meaning."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, handler)


def key_file(data: Path) -> Path:
    return data / "secrets" / "admin-key"


def prepare(data: Path) -> None:
    """The data folder and its parts. Root's may be passed (not read) by others: Postgres may run as one of them."""
    if not data.exists():
        data.mkdir(parents=True, mode=0o700)
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)
    for name in ("logs", "run", "blobs", "secrets", "witness"):
        (data / name).mkdir(mode=0o700, exist_ok=True)


def check_port(host: str, port: int) -> None:
    """Raises StackError when nobody could listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise StackError(f"--host {host} is no address of this machine: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                fix = f"Choose another with --port {port + 1}, or stop the program that has it (ss -ltnp)."
                raise StackError(f"Port {port} on {host} is taken. {fix}") from None
            raise StackError(
                f"Cannot listen on {host} port {port}: {error.strerror}. Choose others: --host, --port."
            ) from None


def end_orphans(data: Path, say: Say) -> None:
    """The worker and API of a `tacit up` that was killed: they were told by the kernel; wait, then insist."""
    left = [Process(pid) for pid in marked(services.MARK, str(data))]
    if left:
        say(f"Waiting for {len(left)} processes of an earlier run to end.")
    deadline = time.monotonic() + ORPHAN_GRACE
    for process in left:
        process.wait(max(0.0, deadline - time.monotonic()))
    end_all(data, signal.SIGKILL)


def end_all(data: Path, number: signal.Signals) -> None:
    """Signal every process that was started for this data folder, until none is left."""
    for _ in range(20):
        left = [Process(pid) for pid in marked(services.MARK, str(data))]
        left = [process for process in left if process.running()]
        for process in left:
            process.send(number)
        if not left:
            return
        left[0].wait(1)


def stop_servers(data: Path) -> list[str]:
    """Stop the broker and the database that run on the folder. Returns the names of those that ran."""
    stopped = []
    if (broker := redis.live(data / "redis")) is not None:
        broker.stop()
        stopped.append("broker")
    if (database := postgres.live(data / "postgres")) is not None:
        database.stop()
        stopped.append("database")
    return stopped


def _log(folder: Path, name: str) -> Path:
    """The log file of one process; one that has grown is put aside."""
    log = folder / f"{name}.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    return log


def admin_url(data: Path) -> str:
    """The administrator's URL of the stack that runs on `data`. Raises StackError when none does."""
    running = postgres.live(data.absolute() / "postgres")
    known = _of_running(data)
    if running is None:
        raise _nothing_runs(data)
    return running.url(roles.ADMIN, known.admin_password, DATABASE)


def _of_running(data: Path) -> secrets.Secrets:
    """The secrets of a stack that was started; none are made."""
    if not (data / "secrets" / "stack.json").exists():
        raise _nothing_runs(data)
    return secrets.load(data)


def _nothing_runs(data: Path) -> StackError:
    return StackError(
        f"no stack runs on {data}; start it with `tacit up`, name its folder with --data, or set the deployment's "
        "TACIT_* variables, of which the database's URL is one"
    )


def policy_key(data: Path) -> str:
    """The operator's signing seed, in hexadecimal. Raises StackError when `data` has none."""
    if not (data / "secrets" / "stack.json").exists():
        raise StackError(f"{data} holds no policy key; name its file with --policy-key")
    return secrets.load(data).policy_key


def _public_half(seed: str) -> str:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)).public_key().public_bytes_raw().hex()
