"""The API and the worker as children: each with its own few environment variables, and none outlives its parent."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic_settings import BaseSettings

from cli.embedded.processes import Process
from domain.kit.settings import ApiSettings, WorkerSettings

MARK = "TACIT_STACK"  # names the data folder in the environment of every child and grandchild
PASSED = (  # what a Python program needs of the machine
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE"),
    *("HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
)
PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class ServiceProcess:
    """How one child is started."""

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path

    def start(self) -> Process:
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", self.module, *self.arguments],
                cwd="/",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours to pass on, in order
                umask=0o077,
                preexec_fn=die_with(os.getpid()),
            )
        return Process(child.pid, child)


def environment(settings: type[BaseSettings], data: Path, values: dict[str, str]) -> dict[str, str]:
    """The variables of one service: the machine's, its own settings found in ours, and `values`."""
    own = [f"TACIT_{name.upper()}{form}" for name in settings.model_fields for form in ("", "_FILE")]
    taken = {name: os.environ[name] for name in [*PASSED, *own] if name in os.environ}
    for name in values:  # the stack's own, and in one form
        taken.pop(name.removesuffix("_FILE"), None)
        taken.pop(f"{name.removesuffix('_FILE')}_FILE", None)
    return taken | {"PYTHONUNBUFFERED": "1", MARK: str(data)} | values


def api_environment(data: Path, values: dict[str, str]) -> dict[str, str]:
    return environment(ApiSettings, data, values)


def worker_environment(data: Path, values: dict[str, str], number: int = 0) -> dict[str, str]:
    """SIGTERM becomes Celery's soft shutdown, which lets a job checkpoint and settle. number: of several, from 0."""
    own = environment(WorkerSettings, data, values | {"REMAP_SIGTERM": "SIGQUIT"})
    if (port := own.get("TACIT_METRICS_PORT", "")).isdecimal():
        own["TACIT_METRICS_PORT"] = str(int(port) + 1 + number)  # the API has the port itself
    return own


def die_with(parent: int) -> Callable[[], None]:
    """In the child, before the program starts: SIGTERM when the parent dies, however it dies."""
    libc = ctypes.CDLL(None)  # loaded before the fork

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return tie
