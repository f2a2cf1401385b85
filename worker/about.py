"""What a worker says of itself over the broker: whose jobs it takes and what it runs, never what it is at; and what its
results are made with."""

import platform
import sys
from importlib.metadata import version
from typing import Any

from celery.worker.control import inspect_command

from domain.jobs.hints import silo_of_queue
from domain.jobs.workers import ABOUT

PACKAGES = ("tacit", "torch", "transformers", "peft")
MADE_WITH = (*PACKAGES, "safetensors", "numpy", "cryptography", "dp-accounting")


@inspect_command(name=ABOUT)
def about(state: Any) -> dict[str, Any]:
    """Answered by the worker's main process, while a job runs in another. state: Celery's, of this worker."""
    versions = {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}
    return {"silo": silo_of_queue(state.app.conf.task_default_queue), "versions": versions}


def made_with() -> dict[str, str]:
    """What this process runs on and with: written into what it releases."""
    return {"python": platform.python_version(), **{name: version(name) for name in MADE_WITH}}
