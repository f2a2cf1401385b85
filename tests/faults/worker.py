"""`python -m worker` that notes every noise it draws, and stumbles where a file in the folder FAULTS tells it to.

Also imported by the pool's processes where those start afresh. Nothing here decides when: whoever writes the files
does, and the first process that comes by takes each.
"""

import contextlib
import hashlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from celery.signals import worker_process_init

NOISES, MEMORY, HANG, CLOCK = "noises", "memory", "hang", "clock"
"""Files in the folder. Of noises: a line for each, with job, fence and digest of the noised mean."""
LOOK = 0.02  # seconds between two looks at the clock's file

_wall, _wall_ns = time.time, time.time_ns
_ahead = 0.0
_holds = ["", 0]


def _path(name: str) -> Path:
    return Path(os.environ["FAULTS"]) / name


def _follow_clock() -> None:
    global _ahead
    while True:
        with contextlib.suppress(OSError, ValueError):  # not there, or just being written
            _ahead = float(_path(CLOCK).read_text())
        time.sleep(LOOK)


if os.environ.get("FAULTS_CLOCK") == "1":  # before anything else is imported: many keep `time.time` by name
    time.time = lambda: _wall() + _ahead
    time.time_ns = lambda: _wall_ns() + int(_ahead * 1e9)
    threading.Thread(target=_follow_clock, daemon=True).start()


def _told(what: str) -> str | None:
    """What the file of this name says; it is taken, so that it says so once."""
    path = _path(what)
    try:
        said = path.read_text()
        path.unlink()
    except FileNotFoundError:
        return None
    return said


@worker_process_init.connect(weak=False)
def _stumble(**_: Any) -> None:
    """In a pool's process, while it has no job yet."""
    import torch

    import dpcore.mechanism.output
    import worker.training
    from dpcore.tasks.sequence_classification import SequenceClassification

    losses, noised_mean = SequenceClassification.losses, dpcore.mechanism.output.noised_mean
    begin = worker.training.Training.run
    errors: dict[str, Exception] = {
        "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        "host": MemoryError(),
        "allocator": RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    }

    def run(self: Any) -> bool:
        _holds[:] = self.lease.job_id, self.lease.fence
        return begin(self)

    def stumbling(self: Any, *arguments: Any) -> Any:
        if _told(HANG) is not None:
            time.sleep(3600)
        where, _, kind = (_told(MEMORY) or "").partition(" ")
        if where == "forward":
            raise errors[kind]
        made = losses(self, *arguments)
        if where == "backward":

            def fail(_: Any) -> None:
                raise errors[kind]

            made.register_hook(fail)
        return made

    def noted(*arguments: Any, **more: Any) -> Any:
        mean = noised_mean(*arguments, **more)
        digest = hashlib.sha256(mean.numpy().tobytes()).hexdigest()[:16]
        with _path(NOISES).open("a") as notes:
            notes.write(f"{_holds[0]} {_holds[1]} {digest}\n")
        return mean

    worker.training.Training.run = run  # type: ignore[method-assign]
    SequenceClassification.losses = stumbling  # type: ignore[method-assign]
    dpcore.mechanism.output.noised_mean = noted


def main() -> int:
    """As the worker's own."""
    import worker.__main__ as real

    make_app = real.make_app

    def lasting(*settings: Any) -> Any:
        """A pool whose process stays for the next job: a fresh one would spend most of a run on importing torch."""
        app = make_app(*settings)
        app.conf.worker_max_tasks_per_child = None
        return app

    if os.environ.get("FAULTS_LASTING") == "1":
        real.make_app = lasting
    return real.main()


if __name__ == "__main__":
    sys.exit(main())
