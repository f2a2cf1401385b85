"""How fast each base model trains here, and in how much memory: measured on made-up tokens, whole steps of the very
loop that jobs run."""

import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import torch

from domain import profiles
from domain.logs import describe
from domain.models import BaseModelFacts
from domain.profiles import Measured
from dpcore.methods import get_method
from dpcore.models import build_model, load_tokenizer
from dpcore.spec.plan import Plan
from dpcore.spec.tasks import CAUSAL_LM, TaskKind
from dpcore.tasks import make_task
from dpcore.train import train
from worker.build import pick_device
from worker.log import log

LONGEST = 128  # tokens of a made-up record: the default length cap of a file
RECORDS = 32  # in each step
STEPS = 3  # after one to warm up


def profile_models(
    engine: sa.Engine, models: Mapping[str, BaseModelFacts], device: str, *, again: bool = False
) -> list[Measured]:
    """Measure every method on every model that has no profile for this device, and keep what was found as it comes.

    again: measure also what has one. Each measurement runs in a process of its own, so that its memory is its own.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a measurement under way ends as well
    made = []
    for model in models.values():
        with engine.connect() as connection:
            known = {(p.method, p.task, p.device) for p in profiles.newest(connection, model)}
        for task in measurable(model):
            for method in model.methods(task):
                if not again and (method, task, device_name(device)) in known:
                    continue
                length = min(LONGEST, model.facts.max_positions)
                measured = _in_own_process(model.folder, method, task, device, length)
                if measured is None:
                    log.warning("%s with %s on %s was not measured", model.name, method, task)
                    continue
                with engine.begin() as connection:
                    profiles.record(connection, model, measured)
                log.info("%s with %s on %s: %.0f tokens a second", model.name, method, task, measured.tokens_per_second)
                made.append(measured)
    return made


def measurable(model: BaseModelFacts) -> list[TaskKind]:
    """The tasks that stand for all that fit the model."""
    return sorted({profiles.measured_as(task) for task in model.facts.tasks})


def measure(folder: Path, method: str, task: TaskKind, device: str, max_length: int) -> Measured:
    """One measurement in this process. Raises what training raises where method and model do not fit."""
    tokenizer = load_tokenizer(folder)
    labels = () if task in CAUSAL_LM else ("a", "b")
    made_up = make_task(task, tokenizer, labels=labels, max_length=max_length)
    model = get_method(method).attach(build_model(task, folder, labels, seed=0), {}, task=task, seed=0)
    where = pick_device(device)
    model.to(where)
    plan = Plan(
        sample_rate=1.0,
        noise_multiplier=1.0,
        steps=20 * STEPS,
        clip_norm=1.0,
        expected_batch=RECORDS,
        method=method,
        learning_rate=1e-3,
        max_length=max_length,
    )
    watch = _Watch()
    train(
        model=model,
        task=made_up,
        records=made_up.synthetic(RECORDS, max_length),
        plan=plan,
        authorise=watch.authorise,
        save=watch.save,
        should_stop=lambda: False,
    )
    return Measured(
        method=method,
        task=task,
        device=device_name(device),
        max_length=max_length,
        tokens_per_second=STEPS * RECORDS * max_length / watch.seconds,
        peak_bytes=_peak_bytes(where),
    )


def device_name(device: str) -> str:
    """The processor or GPU that a setting stands for, by name; a processor with the threads that it is used with."""
    where = pick_device(device)
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    return f"{name}, {torch.get_num_threads()} threads"


class _Watch:
    """Grants one step to warm up, then those that are timed, then none."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._granted = [1, STEPS, 0]
        self._since = 0.0

    def authorise(self, steps: int) -> int:
        self._since = time.perf_counter()
        return self._granted.pop(0)

    def save(self, data: bytes) -> None:
        self.seconds = time.perf_counter() - self._since


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_own_process(*what: Any) -> Measured | None:
    """`measure` with these arguments; None when it fails, on too small a machine for example."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, *what), daemon=True)
    process.start()
    theirs.close()
    try:
        measured: Measured | None = ours.recv()
    except EOFError:  # it was killed
        measured = None
    process.join()
    return measured


def _send(answer: Connection, *what: Any) -> None:
    try:
        answer.send(measure(*what))
    except Exception as error:  # noqa: BLE001  (whatever it is, the next one is still worth measuring)
        log.warning("a measurement failed: %s", describe(error))
        answer.send(None)
