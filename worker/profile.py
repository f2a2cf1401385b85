"""How fast each base model trains here, and in how much memory: measured on made-up tokens, whole steps of the very
loop that jobs run."""

import multiprocessing
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import numpy as np
import sqlalchemy as sa
import torch

from domain.kit.logs import describe
from domain.models import profiles
from domain.models.allow_list import BaseModelFacts
from domain.models.profiles import Measured
from domain.models.reasons import of_files
from dpcore.machine.micro_batches import out_of_memory
from dpcore.machine.token_budget import device_bytes
from dpcore.methods import get_trainer
from dpcore.models import build_model
from dpcore.readers import load_reader
from dpcore.run import run
from dpcore.tasks import make_task
from dpcore.terms.estimators import Local
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import DEFAULT_METHOD, get_method
from dpcore.terms.presets import further_options
from dpcore.terms.program import Program, of_users
from dpcore.terms.tasks import CAUSAL_LM, TaskKind
from worker.build import pick_device
from worker.log import log

_LIBRARIES = ("tacit", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    longest: int
    """Tokens of a made-up record, where the model takes as many."""
    records: int
    """In each step."""
    steps: int
    """After one to warm up."""


WHOLE = Size(longest=128, records=32, steps=3)
"""To measure: 128 is the default length cap of a file."""
TINY = Size(longest=32, records=4, steps=1)
"""To find out whether a method trains a model at all."""


def profile_models(
    engine: sa.Engine, models: Mapping[str, BaseModelFacts], device: str, *, again: bool = False
) -> list[Measured]:
    """Measure every method on every model that has neither a profile for this device nor a refusal with these
    libraries, and keep what was found as it comes: a profile, or why the method cannot train the model. Then the
    default method with what presets choose.

    again: also what was tried. Each measurement runs in a process of its own, so that its memory is its own.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a measurement under way ends as well
    made = []
    for model, method, task in worth_trying(engine, models, device, again=again):
        found = try_out(engine, model, method, task, device, WHOLE)
        if isinstance(found, Measured):
            with engine.begin() as connection:
                profiles.record(connection, model, found)
            log.info("%s with %s on %s: %.0f tokens a second", model.name, method, task, found.tokens_per_second)
            made.append(found)
    for model, task, options in _of_presets(engine, models, device, again=again):
        length = _length(model, WHOLE)
        found = _in_own_process(
            *(model.folder, DEFAULT_METHOD, task, device, length, WHOLE.records, WHOLE.steps, options)
        )
        if isinstance(found, Measured):
            with engine.begin() as connection:
                profiles.record(connection, model, found)
            made.append(found)
    return made


def _of_presets(
    engine: sa.Engine, models: Mapping[str, BaseModelFacts], device: str, *, again: bool
) -> list[tuple[BaseModelFacts, TaskKind, dict[str, Any]]]:
    """What presets choose of models that the default method trains, and was not measured here; again: all of it."""
    found = []
    for model in models.values():
        with engine.connect() as connection:
            known = profiles.known(connection, model)
        here = [(p.task, p.options) for p in known.profiles if p.device == device_name(device)]
        for task in measurable(model):
            if DEFAULT_METHOD in known.methods(model, task):
                wanted = further_options(task, model.facts)
                found += [(model, task, options) for options in wanted if again or (task, options) not in here]
    return found


def worth_trying(
    engine: sa.Engine, models: Mapping[str, BaseModelFacts], device: str, *, again: bool
) -> list[tuple[BaseModelFacts, str, TaskKind]]:
    """Models, methods and tasks of which too little is known here; again: all that may fit each other."""
    found = []
    for model in models.values():
        with engine.connect() as connection:
            of_device = [p for p in profiles.known(connection, model).profiles if p.device == device_name(device)]
            refused = profiles.refused_by(connection, model, versions())
        # A profile of an earlier version does not say what the device has: it is taken once more.
        tried = refused | {(profile.method, profile.task) for profile in of_device if profile.device_bytes is not None}
        fitting = [(method, task) for task in measurable(model) for method in model.methods(task)]
        found += [(model, *one) for one in fitting if again or one not in tried]
    return found


def try_out(
    engine: sa.Engine, model: BaseModelFacts, method: str, task: TaskKind, device: str, size: Size
) -> Measured | str | None:
    """What was measured, or why the method cannot train the model, either kept as a trial; None where this machine
    cannot tell."""
    length = _length(model, size)
    found = _in_own_process(model.folder, method, task, device, length, size.records, size.steps)
    if found is None:
        log.warning("%s with %s on %s was not measured", model.name, method, task)
        return None
    refusal = found if isinstance(found, str) else None
    with engine.begin() as connection:
        profiles.record_trial(connection, model, method, task, refusal, versions())
    if refusal is not None:
        log.warning("%s cannot be trained with %s on %s: %s", model.name, method, task, refusal)
    return found


def _length(model: BaseModelFacts, size: Size) -> int:
    """Tokens of a record: a picture is as long as all others."""
    most = model.facts.max_positions
    return most if model.facts.pictures else min(size.longest, most)


def versions() -> str:
    """Of the libraries on which it depends whether a method trains a model."""
    return ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)


def measurable(model: BaseModelFacts) -> list[TaskKind]:
    """The tasks that stand for all that fit the model."""
    return sorted({profiles.measured_as(task) for task in model.facts.tasks})


def measure(
    folder: Path,
    method: str,
    task: TaskKind,
    device: str,
    max_length: int,
    records: int = WHOLE.records,
    steps: int = WHOLE.steps,
    options: Mapping[str, Any] | None = None,
) -> Measured:
    """One measurement in this process, with the method's default options but for these. Raises what training raises
    where method and model do not fit."""
    reader = load_reader(task, folder)
    labels = () if task in CAUSAL_LM else ("a", "b")
    made_up = make_task(task, reader, labels=labels, max_length=max_length)
    trainer, program = get_trainer(method), _usual(folder, method, task, max_length, records, steps, options or {})
    model = trainer.attach(build_model(task, folder, labels, seed=0), program.options, task=task, seed=0)
    where = pick_device(device)
    model.to(where)
    watch = _Watch(steps)
    run(
        model=model,
        task=made_up,
        records=made_up.synthetic(records, max_length),
        program=program,
        begin=partial(trainer.begin, task=task),
        learns=trainer.learns,
        between=trainer.between,
        authorise=watch.authorise,
        save=watch.save,
        should_stop=lambda: False,
        owners=_owners(program, records),
    )
    return Measured(
        method=method,
        task=task,
        device=device_name(device),
        max_length=max_length,
        tokens_per_second=sum(steps * records * max_length * p.estimator.passes for p in program.phases)
        / watch.seconds,
        peak_bytes=_peak_bytes(where),
        device_bytes=device_bytes(where),
        options=dict(options or {}),
    )


def _usual(
    folder: Path, method: str, task: TaskKind, max_length: int, records: int, steps: int, own: Mapping[str, Any]
) -> Program:
    """The method's own phases with its defaults but for its `own` options, of which so many steps are at most a chunk,
    on a file of `records` records that are all drawn."""
    spec = get_method(method)
    asked: dict[str, dict[str, Any]] = {"options": dict(own), "numbers": {"steps": 20 * steps}}
    if get_args(spec.Request.model_fields["steps"].annotation) == ("auto",):  # its rounds say how many
        asked = {"options": {**own, "rounds": 20 * steps}, "numbers": {}}
    options = spec.Options.model_validate(asked["options"])
    request = spec.Request.model_validate(asked["numbers"] | {"batch_size": records})
    numbers = spec.resolve(request, options, task=task, declared_size=records, epsilon=1.0, facts=read_facts(folder))
    phases = spec.phases(options, numbers, declared_size=records)
    return Program(
        method=method,
        options=options.model_dump(mode="json"),
        unit="user" if of_users(phases) else "record",
        max_length=max_length,
        phases=phases,
    )


def _owners(program: Program, records: int) -> np.ndarray | None:
    """Made-up users, each with as many records as one looks at in a step, where the unit is the user."""
    each = [p.estimator.records_each for p in program.phases if isinstance(p.estimator, Local)]
    return np.arange(records) // max(each) if each else None


def device_name(device: str) -> str:
    """The processor or GPU that a setting stands for, by name; a processor with the threads that it is used with."""
    where = pick_device(device)
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    return f"{name}, {torch.get_num_threads()} threads"


class _Watch:
    """Grants each phase one step to warm up, then those that are timed, then none."""

    def __init__(self, steps: int) -> None:
        self.seconds = 0.0
        self._steps, self._since = steps, 0.0
        self._asked: Counter[int] = Counter()
        self._timed = False

    def authorise(self, phase: int, steps: int) -> int:
        self._asked[phase] += 1
        self._timed, self._since = self._asked[phase] == 2, time.perf_counter()
        return {1: 1, 2: self._steps}.get(self._asked[phase], 0)

    def save(self, data: bytes) -> None:
        if self._timed:
            self.seconds += time.perf_counter() - self._since


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_own_process(*what: Any) -> Measured | str | None:
    """`measure` with these arguments; why the method cannot train the model; None where this machine cannot tell."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, *what), daemon=True)
    process.start()
    theirs.close()
    try:
        found: Measured | str | None = ours.recv()
    except EOFError:  # it was killed
        found = None
    process.join()
    return found


def _send(answer: Connection, *what: Any) -> None:
    try:
        answer.send(measure(*what))
    except Exception as error:  # noqa: BLE001  (whatever it is, the next one is still worth measuring)
        log.warning("a measurement failed: %s", describe(error))
        answer.send(None if _of_machine(error) else of_files(error))


def _of_machine(error: Exception) -> bool:
    """Whether it says more about this machine than about model and method."""
    at_system = isinstance(error, OSError) and error.errno is not None  # others are words of a library
    return at_system or out_of_memory(error) or isinstance(error, torch.AcceleratorError)
