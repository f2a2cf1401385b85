"""Federated jobs as a coordinator and its silos would run them, all in one process: what comes out is scored on public
rows."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training.jobs import Data, Rows
from benchmarks.training.processes import Commands, clock
from dpcore.federated import server
from dpcore.federated.silo import Silo, attach, factors, put
from dpcore.federated.simulate import simulate
from dpcore.mechanism.keystream import Streams
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from dpcore.terms import accounting
from dpcore.terms.federated.options import Options
from dpcore.terms.federated.silo import Request, longest_message, phases, resolve, silo_program
from dpcore.terms.mechanisms import subsampled
from dpcore.terms.program import Program

DIRICHLET = 0.5
UNCLIPPED = 100.0
"""No record's gradient is as long: of a norm so large, without noise, that nothing is private."""


@dataclass(frozen=True)
class FederatedJob:
    """epsilon: of each silo; None: neither clipped nor noised. numbers: of each silo, as a caller would ask for them;
    the batch of a small silo is a quarter of it."""

    options: Options
    numbers: dict[str, Any]
    epsilon: float | None
    base: Path
    delta: float = 1e-5
    seed: int = 0


def split(rows: Rows, kinds: Sequence[object], silos: int, seed: int) -> list[Rows]:
    """The rows, parted over silos by a Dirichlet distribution of each kind of row."""
    rng, of = np.random.default_rng(seed), np.zeros(len(rows), dtype=np.int64)
    told = np.array([str(kind) for kind in kinds])
    for kind in sorted(set(told)):
        here = np.flatnonzero(told == kind)
        of[here] = rng.choice(silos, size=len(here), p=rng.dirichlet([DIRICHLET] * silos))
    return [take(rows, np.flatnonzero(of == silo)) for silo in range(silos)]


def take(rows: Rows, places: Sequence[int] | np.ndarray) -> Rows:
    """These rows."""
    columns = {name: [column[i] for i in places] for name, column in rows.columns.items()}
    return Rows(columns, None if rows.labels is None else [rows.labels[i] for i in places])


def banking77(folder: Path, max_length: int) -> Data:
    """train.tsv and test.tsv: what a bank's customer wants, one of 77 intents."""
    found = []
    for name in ("train", "test"):
        with (folder / f"{name}.tsv").open(encoding="utf-8", newline="") as lines:
            found.append(list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)))
    names = {int(row["label"]): row["label_name"] for row in found[0]}
    train, test = (Rows({"text": [r["text"] for r in rows]}, [int(r["label"]) for r in rows]) for rows in found)
    return Data("classification", train, test, tuple(names[i] for i in range(len(names))), max_length)


def medquad(folder: Path, evaluated: int, max_length: int) -> tuple[Data, list[str]]:
    """train.jsonl and test.jsonl: medical questions and answers, and the collection that each is of."""
    found = []
    for name in ("train", "test"):
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
            found.append([json.loads(line) for line in lines])
    train, test = (
        Rows({"prompt": [r["question"] for r in rows], "completion": [r["answer"] for r in rows]}) for rows in found
    )
    places = np.random.default_rng(0).choice(len(test), size=min(evaluated, len(test)), replace=False)
    data = Data("completion", train, take(test, places), max_length=max_length)
    return data, [row["collection"] for row in found[0]]


def program(job: FederatedJob, declared_size: int, max_length: int) -> Program:
    """Of a silo with a budget of its own, which was opened for just this."""
    batch = min(job.numbers["batch_size"], max(1, declared_size // 4))
    numbers = resolve(Request(**job.numbers | {"batch_size": batch}), job.options, declared_size=declared_size)
    if job.epsilon is None:
        (phase,) = phases(job.options, numbers, declared_size=declared_size)
        quiet = subsampled(phase.expected_batch, declared_size, noise=1e-12)
        bare = phase.model_copy(update={"mechanism": quiet, "clipping": "flat", "clip_norm": UNCLIPPED})
        return Program(method="federated-lora", max_length=max_length, seed=job.seed, phases=(bare,))
    steps = job.options.rounds * job.options.local_steps
    held = accounting.reference_filter(job.epsilon, job.delta, numbers.batch_size / declared_size, steps)
    return silo_program(
        job.options,
        numbers,
        declared_size=declared_size,
        epsilon=job.epsilon,
        delta=job.delta,
        filter=held,
        unit="record",
        max_length=max_length,
        seed=job.seed,
    )


@dataclass(frozen=True)
class Came:
    """Of one job. sizes: of the silos; noise: of each."""

    before: float
    score: float
    seconds: float
    message_bytes: int
    model_bytes: int
    sizes: tuple[int, ...]
    noise: tuple[float, ...]


def commands(job: FederatedJob, data: Data, parts: Sequence[Rows]) -> Commands:
    """train(): what came of the job."""
    tokenizer = load_tokenizer(job.base)
    task = make_task(data.task, tokenizer, labels=data.labels, max_length=data.max_length)
    base = build_model(data.task, job.base, data.labels, seed=job.seed)
    whole = sum(p.numel() * p.element_size() for p in base.parameters())
    model = attach(base, job.options, task=data.task, seed=job.seed)
    state = server.begin("benchmark", factors(model))
    sizes = {f"silo-{number}": len(part) for number, part in enumerate(parts)}
    programs = {name: program(job, size, data.max_length) for name, size in sizes.items()}
    sent: list[int] = []

    def score() -> float:
        return float(task.metrics(model, data.evaluate.columns, data.evaluate.labels or ())[data.metric])

    def travels(round: int, silo: str, message: bytes) -> bytes:
        sent.append(len(message))
        return message

    def train() -> Came:
        before = score()
        silos = [
            Silo(
                name,
                model=model,
                task=task,
                records=task.encode(part.columns, part.labels or ()),
                program=programs[name],
                options=job.options,
            )
            for name, part in zip(sizes, parts, strict=True)
        ]
        began = clock(torch.device("cpu"))
        ended = simulate(
            state,
            job.options,
            silos,
            sizes,
            streams={name: Streams() for name in sizes},
            bounds={name: _bound(job, programs[name], size, state) for name, size in sizes.items()},
            travels=travels,
        )
        seconds = clock(torch.device("cpu")) - began
        put(model, ended.factors)
        noise = tuple(made.phases[0].mechanism.noise_multiplier for made in programs.values())
        return Came(before, score(), seconds, max(sent), whole, tuple(sizes.values()), noise)

    return {"train": train}


def _bound(job: FederatedJob, made: Program, size: int, state: server.State) -> float | None:
    """Of a message in the first round, when the rate is highest."""
    numbers = sum(value.numel() for value in state.factors.values())
    return longest_message(made, job.options, declared_size=size, numbers=numbers, round=0)


def central(job: FederatedJob) -> FederatedJob:
    """The same with all rows in one place: one silo, whose batch is that of all."""
    return replace(job, options=job.options.model_copy(update={"least_silos": 1}))
