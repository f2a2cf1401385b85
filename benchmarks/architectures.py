"""Which architectures does each method train, and how exact are the clipped sums that it trains on?

works, inexact, refused, charged, raw         how many cases ended in each way
{type}/{classification,completion}/{method}   where a step ran, the largest relative error of a clipped sum of
                                              per-example gradients in float64, against plain autograd one by one

A case goes the way of a job, with a tiny random model of the type (tests/dpcore/zoo.py) and made-up texts: from the
folder to facts, options, tokenizer, model and task, through the rehearsal and one step in float32, at the length cap
that the facts allow. Then the trained weights are moved, and sums are compared, with matrices taken as thin and as
wide. engine: fast, or one by one, as the step was taken. Of a method that takes no gradient the losses are compared:
of records among others with those of each alone.

inexact: the error is above 1e-9, or 1e-5 for a type that computes parts in float32 whatever it is made of. refused: a
ValueError, an OSError or an error of the engine ended it before the step was authorised; its words are in a note.
charged: one of these after that. raw: any other exception. All but works and refused make the exit status 1.
"""

import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import logging

from benchmarks.common import Figure, parser, report, versions
from dpcore.engine import errors, layout
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.mechanism.clipping import AUTOMATIC_OFFSET, ClippedSum
from dpcore.methods import get_trainer
from dpcore.methods.federated_lm import merged
from dpcore.models import build_model, load_tokenizer
from dpcore.run import run
from dpcore.tasks import TextTask, make_task
from dpcore.tasks.records import Records
from dpcore.terms.estimators import ZerothOrder
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import get_method, method_names
from dpcore.terms.program import Program, of_users, scaled
from dpcore.terms.speed import Speed
from tests.dpcore import zoo

NAME = "architectures"
QUICK = ("bert", "bloom", "deberta-v2", "gpt2", "llama", "mamba")
WORDS = (1, 1, 2, 3, 4, 5, 7, zoo.POSITIONS)
"""Of the made-up records; the last is cut at the length cap."""
SHORT = 16
"""Tokens of the others at most. Behind a longer padding, a query of a window that wide sees nothing but masks, which
overflow where a model casts float64 to float32."""
_OF_ENGINE = [known for known in vars(errors).values() if isinstance(known, type) and issubclass(known, Exception)]
REFUSALS: tuple[type[Exception], ...] = (ValueError, OSError, *_OF_ENGINE)


EXACT = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Largest relative error of a sum that is rounding alone."""
FLOAT32 = ("canine", "codegen")
"""Types that compute parts in float32 whatever they are made of, the first with masks that overflow in float64."""

Way = Literal["works", "inexact", "refused", "charged", "raw"]


@dataclass(frozen=True)
class Outcome:
    """How a case ended. engine and error: where a step ran. words: the reason, where none did."""

    way: Way
    engine: str = ""
    error: float = 0.0
    words: str = ""


@dataclass
class _Case:
    """How far a case has come: the part that it is in, the steps that it was allowed, the phase of the last of them,
    and each phase's largest micro-batch since."""

    part: str = "facts"
    authorised: int = 0
    phase: int = 0
    largest: Counter[int] = field(default_factory=Counter)


def outcome(name: str, kind: zoo.Kind, method: str, folder: Path) -> Outcome:
    """Take a method through all of it on the model of this type that is saved in the folder."""
    case = _Case()
    try:
        dtype = torch.float32 if name in FLOAT32 else torch.float64
        engine, error = _run(case, kind, method, folder, dtype)
    except REFUSALS as reason:
        return Outcome("charged" if case.authorised else "refused", words=f"{case.part}: {_line(reason)}")
    except Exception as fault:  # noqa: BLE001  what it is, is the finding
        last = traceback.extract_tb(fault.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Outcome("raw", words=f"{case.part}: {type(fault).__name__}: {_line(fault)} ({where})")
    return Outcome("works" if error <= EXACT[dtype] else "inexact", engine, error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _run(case: _Case, kind: zoo.Kind, method: str, folder: Path, dtype: torch.dtype) -> tuple[str, float]:
    """The engine that took the step, and the largest error of its sums of this type."""
    facts, spec = read_facts(folder), get_method(method)
    if kind not in facts.tasks:
        raise ValueError(f"the model's tasks are {', '.join(facts.tasks)}")
    options, length = spec.Options(), min(facts.max_positions, zoo.POSITIONS)
    case.part = "check"
    spec.check(options, facts, kind)
    case.part = "load"
    labels = zoo.LABELS if kind == "classification" else ()
    tokenizer, base = load_tokenizer(folder), build_model(kind, folder, labels, seed=0)
    task = make_task(kind, tokenizer, labels=labels, max_length=length)
    case.part = "attach"
    trainer = get_trainer(method)
    model = trainer.attach(base, options.model_dump(mode="json"), task=kind, seed=0)
    case.part = "encode"
    records = _records(task, kind)
    asked, declared = spec.Request(steps=1, batch_size=len(records)), len(records)
    numbers = spec.resolve(asked, options, task=kind, declared_size=declared, epsilon=1.0, facts=facts)
    phases = scaled(spec.phases(options, numbers, declared_size=declared), 1e-6)
    over_users = of_users(phases)
    program = Program(method=method, unit="user" if over_users else "record", max_length=length, phases=phases)
    losses = task.losses

    def authorise(phase: int, steps: int) -> int:
        case.part, case.authorised, case.phase = "step", case.authorised + steps, phase
        return steps

    def watched(model: nn.Module, records: Records, indices: np.ndarray, length: int, **more: Any) -> Tensor:
        if case.authorised:
            case.largest[case.phase] = max(case.largest[case.phase], len(indices))
        return losses(model, records, indices, length, **more)

    task.losses = watched  # type: ignore[method-assign]
    case.part = "rehearsal"
    run(
        model=model,
        task=task,
        records=records,
        program=program,
        authorise=authorise,
        save=lambda data: None,
        should_stop=lambda: False,
        begin=partial(trainer.begin, task=kind),
        learns=trainer.learns,
        between=trainer.between,
        owners=np.arange(len(records)) if over_users else None,
        # Few lengths, so that records of several share a micro-batch.
        speed=Speed(tokens=1024, lengths_per_doubling=1),
    )
    case.part = "sums"
    if over_users:  # a user's training meets no other user's records; its rows must be those of the stock model
        return "one by one", _error_of_merging(model.to(dtype), task, records)
    model, largest = model.to(dtype), 0.0
    fast = [case.largest[index] > 1 for index in range(len(phases))]
    for index, phase in enumerate(phases):
        trainer.begin(model, phase, {}, task=kind)
        learnt = trainer.learns(model, phase, task)
        _move(model)
        if isinstance(phase.estimator, ZerothOrder):
            errors = [_error_of_losses(model, learnt, records)]
        else:
            errors = [_error(model, learnt, records, fast=fast[index], thin_side=s) for s in (layout.THIN_SIDE, 0)]
        largest = max(largest, *errors)
    return "fast" if all(fast) else "one by one", largest


def _records(task: TextTask, kind: zoo.Kind) -> Records:
    """Made-up records of mixed lengths."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(zoo.WORDS, size=length)) for length in WORDS]
    if kind == "classification":
        return task.encode({"text": texts}, [i % len(zoo.LABELS) for i in range(len(texts))])
    return task.encode({"prompt": [text.split()[0] for text in texts], "completion": texts}, [])


def _move(model: nn.Module) -> None:
    """Give what trains random values: LoRA's second matrices, among others, start at zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def _batches(records: Records) -> list[tuple[np.ndarray, int]]:
    """Indices and padded length: of the short records, and of the others."""
    short = records.lengths <= SHORT
    return [(np.flatnonzero(short), SHORT), (np.flatnonzero(~short), int(records.lengths.max()))]


@torch.no_grad()
def _error_of_losses(model: nn.Module, task: Any, records: Records) -> float:
    """Relative error of the losses of all records, the short ones in one micro-batch."""
    together, alone = [], []
    for indices, length in _batches(records):
        together.append(task.losses(model, records, indices, length))
        alone += [task.losses(model, records, now, length) for now in indices[:, None]]
    expected = torch.cat(alone)
    return float((torch.cat(together) - expected).norm() / expected.norm())


@torch.no_grad()
def _error_of_merging(model: nn.Module, task: Any, records: Records) -> float:
    """Relative error of the losses of all records, between rows that train beside their tables and in them."""
    _move(model)
    indices, length = np.arange(len(records)), int(records.lengths.max())
    beside = task.losses(model, records, indices, length)
    within = task.losses(merged(model), records, indices, length)
    return float((within - beside).norm() / beside.norm())


def _error(model: nn.Module, task: Any, records: Records, *, fast: bool, thin_side: int) -> float:
    """Relative error of two sums of all records' gradients, the short ones in one micro-batch: scaled to about one,
    and as they are, where a common factor would show."""
    batches = _batches(records)
    with _thin(thin_side):
        engine = PerExample(model) if fast else OneByOne(model)
        zero = partial(ClippedSum.zero, engine.width, expected_batch=len(records), device=engine.device)
        sums = [zero(clipping="automatic", clip_norm=1.0), zero(clipping="flat", clip_norm=1e6)]
        for indices, length in batches:
            for now in [indices] if fast else indices[:, None]:
                made = engine.gradients(partial(task.losses, model, records, now, length), len(now))
                for total in sums:
                    total.add(made)
    expected = torch.zeros(2, engine.width, dtype=torch.float64)
    for indices, length in batches:
        for now in indices[:, None]:
            (loss,) = task.losses(model, records, now, length)
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(engine.parameters.values()))])
            expected += torch.stack([gradient / (gradient.norm() + AUTOMATIC_OFFSET), gradient])
    values = torch.stack([total.value for total in sums])
    return float(((values - expected).norm(dim=1) / expected.norm(dim=1)).max())


@contextmanager
def _thin(side: int) -> Iterator[None]:
    """Matrices with a longer side are wide inside: tiny models would have none."""
    before, layout.THIN_SIDE = layout.THIN_SIDE, side
    try:
        yield
    finally:
        layout.THIN_SIDE = before


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 where each case works or is refused before anything is paid."""
    made = parser(__doc__)
    known = sorted({*zoo.CLASSIFIERS, *zoo.CAUSAL})
    made.add_argument("--types", nargs="+", choices=known, metavar="TYPE", help="which to run (default: all)")
    made.add_argument("--kinds", nargs="+", default=list(zoo.KINDS), choices=list(zoo.KINDS), help="which to run")
    made.add_argument("--methods", nargs="+", default=method_names(), choices=method_names(), help="which to run")
    options = made.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    types = options.types or (QUICK if options.quick else known)
    figures: list[Figure] = []
    notes: list[str] = []
    ways: Counter[str] = Counter()
    for name, kind in product(types, options.kinds):
        if name not in zoo.KINDS[kind]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            zoo.save(name, kind, Path(folder))
            for method in options.methods:
                found, case = outcome(name, kind, method, Path(folder)), f"{name}/{kind}/{method}"
                ways[found.way] += 1
                if found.engine:
                    figures.append(Figure(NAME, case, found.error, "error", None, {"engine": found.engine}))
                else:
                    notes.append(f"{case}: {found.way}: {found.words}")
                sys.stderr.write(f"{case} {found.way}\n")
    detail = versions("torch", "transformers", "peft")
    counts = [Figure(NAME, way, ways[way], "cases", None, detail) for way in get_args(Way)]
    report([*counts, *figures], options.json, notes)
    return int(ways.total() > ways["works"] + ways["refused"])


if __name__ == "__main__":
    sys.exit(main())
