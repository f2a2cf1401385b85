"""Jobs as the service would plan and run them, in a process of their own: what leaves is scored on public rows."""

import csv
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from math import isinf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from benchmarks.training.bleu import bleu
from benchmarks.training.processes import Commands, clock, peak
from benchmarks.training.texts import TOKENIZER
from cli.demo_data import notes as made_up
from domain.access.reference import reference_job
from dpcore import checkpoint
from dpcore.estimators import Setting
from dpcore.estimators import make as make_estimator
from dpcore.export import About
from dpcore.mechanism.keystream import Streams
from dpcore.methods import get_trainer, load_export
from dpcore.models import build_model, load_tokenizer
from dpcore.run import run
from dpcore.tasks import make_task
from dpcore.terms import accounting
from dpcore.terms.facts import read_facts
from dpcore.terms.label_words import are_words
from dpcore.terms.methods import get_method
from dpcore.terms.presets import PRESETS, expanded
from dpcore.terms.program import Program, parts, scaled
from dpcore.terms.speed import Speed
from dpcore.terms.tasks import TaskKind
from dpcore.word_head import start_from_words

BUILT_IN = Path(str(files(TOKENIZER) / "model"))
"""The base model of the package."""
LOOSE, NEXT_TO_NONE = 100.0, 1e-6
"""Of a job without privacy: the epsilon that its numbers are chosen for, and its noise over its clipping norm."""
_INFERENCES = 3
_LOOKED_AT = 500
"""Units by which is seen how long their mean is."""


@dataclass(frozen=True)
class Rows:
    """Records of one kind, as columns; no labels of a language model's."""

    columns: dict[str, list[str]]
    labels: list[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def first(self, count: int) -> "Rows":
        """So many of them."""
        return self.at(range(min(count, len(self))))

    def at(self, rows: Iterable[int]) -> "Rows":
        """Some of them."""
        kept = list(rows)
        return Rows(
            {name: [column[row] for row in kept] for name, column in self.columns.items()},
            None if self.labels is None else [self.labels[row] for row in kept],
        )


@dataclass(frozen=True)
class Data:
    """What a job trains on, and what it is scored on."""

    task: TaskKind
    train: Rows
    evaluate: Rows
    labels: tuple[str, ...] = ()
    max_length: int = 128
    owners: tuple[int, ...] = ()
    """The user of each record to train on, numbered from 0, where the unit is the user."""

    def first(self, count: int) -> "Data":
        """With so many of the records to train on, of single records as units."""
        return self if count >= len(self.train) else replace(self, train=self.train.first(count))

    @property
    def units(self) -> int:
        """Records, or users, to train on."""
        return max(self.owners) + 1 if self.owners else len(self.train)

    @property
    def metric(self) -> str:
        """What `score` answers."""
        return "accuracy" if self.labels else "perplexity"


@dataclass(frozen=True)
class Job:
    """What a caller would ask for, of a method or of a preset. numbers: hyperparameters; those that are not named are
    the service's own."""

    method: str
    epsilon: float
    options: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    delta: float = 1e-5
    seed: int = 0
    base: Path = BUILT_IN
    noise_of: int | None = None
    """The batch whose noise a step has beside its mean; None: its own. A step of fewer records with the noise of a
    large batch says what the large one would learn, but for the draw's own chance. It protects nobody."""


def held_back(data: Data) -> Data:
    """With every tenth row that it would train on in place of the public rows, which stay unseen."""
    train = data.train
    apart = [row for row in range(len(train)) if row % 10 == 9]
    rest = [row for row in range(len(train)) if row % 10 != 9]
    return replace(data, train=train.at(rest), evaluate=train.at(apart))


def narrow(folder: Path) -> Path:
    """The base model's tokenizer with two narrow, random layers, saved in the folder: for quick runs."""
    config = AutoConfig.from_pretrained(BUILT_IN)
    config.update({"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64})
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    load_tokenizer(BUILT_IN).save_pretrained(folder)
    return folder


def sst2(folder: Path | None, count: int) -> Data:
    """The first rows of train.tsv and all of dev.tsv; without a folder made-up notes."""
    if folder is None:
        rows = made_up(count + 200)
        texts, labels = [text for text, _ in rows], [int(label == rows[0][1]) for _, label in rows]
        train, dev = Rows({"text": texts[:count]}, labels[:count]), Rows({"text": texts[count:]}, labels[count:])
    else:
        train, dev = (_labelled(folder / f"{name}.tsv", {"text": "sentence"}, None) for name in ("train", "dev"))
    return Data("classification", train.first(count), dev, ("negative", "positive"))


def mr(folder: Path, count: int) -> Data:
    """The first rows of train.tsv and all of test.tsv."""
    train, test = (_labelled(folder / f"{name}.tsv", {"text": "sentence"}, None) for name in ("train", "test"))
    return Data("classification", train.first(count), test, ("negative", "positive"))


def banking77(folder: Path, count: int) -> Data:
    """The first rows of train.tsv, which lie there class by class, after shuffling by a fixed seed; all of test.tsv."""
    with (folder / "train.tsv").open(encoding="utf-8", newline="") as lines:
        labels = sorted({row["label_name"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)})
    train, test = (
        _labelled(folder / f"{name}.tsv", {"text": "text"}, tuple(labels), "label_name") for name in ("train", "test")
    )
    order = np.random.default_rng(0).permutation(len(train))[:count]
    assert train.labels is not None
    mixed = Rows({"text": [train.columns["text"][i] for i in order]}, [train.labels[i] for i in order])
    return Data("classification", mixed, test, tuple(labels))


def qnli(folder: Path, count: int | None = None) -> Data:
    """train_from_dev.tsv, the first rows, and eval_from_dev.tsv: sentence pairs."""
    labels = ("entailment", "not_entailment")
    columns = {"text": "question", "text_pair": "sentence"}
    names = ("train_from_dev", "eval_from_dev")
    train, dev = (_labelled(folder / f"{name}.tsv", columns, labels) for name in names)
    return Data("pair", train if count is None else train.first(count), dev, labels)


def medquad(folder: Path, count: int) -> Data:
    """train.jsonl, the first rows after shuffling by a fixed seed, and test.jsonl: questions, and the kind of each, of
    those that both files have."""
    train, test = ([json.loads(line) for line in (folder / f"{name}.jsonl").open()] for name in ("train", "test"))
    labels = tuple(sorted({row["qtype"] for row in train} & {row["qtype"] for row in test}))

    def rows(found: list[dict[str, str]]) -> Rows:
        kept = [row for row in found if row["qtype"] in labels]
        return Rows({"text": [row["question"] for row in kept]}, [labels.index(row["qtype"]) for row in kept])

    made = rows(train)
    order = np.random.default_rng(0).permutation(len(made))[:count]
    return Data("classification", made.at(order.tolist()), rows(test), labels)


def completions(folder: Path, count: int, evaluated: int) -> Data:
    """E2E's meaning representations and references: prompts and completions."""
    columns = {"prompt": "mr", "completion": "ref"}
    train, dev = (_labelled(folder / f"{name}.tsv", columns, ()) for name in ("train", "dev"))
    return Data("completion", train.first(count), dev.first(evaluated))


def _labelled(file: Path, columns: dict[str, str], labels: tuple[str, ...] | None, label: str = "label") -> Rows:
    """labels: of names; None: the column has their numbers; none: there are no labels. label: the column of them."""
    with file.open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    kept = {name: [row[column] for row in table] for name, column in columns.items()}
    if labels == ():
        return Rows(kept)
    return Rows(kept, [int(row[label]) if labels is None else labels.index(row[label]) for row in table])


def program(job: Job, data: Data) -> Program:
    """The job as the service would plan it, on a budget of this epsilon that is made with the file."""
    facts, size = read_facts(job.base), data.units
    unbounded = isinf(job.epsilon)
    epsilon, labels = LOOSE if unbounded else job.epsilon, len(data.labels)
    public: dict[str, Any] = {"task": data.task, "declared_size": size, "epsilon": epsilon, "facts": facts}
    method, chosen, numbers = job.method, job.options, job.numbers
    if method in PRESETS:
        method, chosen, numbers = expanded({"preset": method, **chosen}, numbers, labels=labels, **public)
    spec = get_method(method)
    options = spec.Options.model_validate(chosen)
    spec.check(options, facts, data.task)
    asked = spec.Request(**numbers)
    phases = spec.phases(options, spec.resolve(asked, options, **public), declared_size=size)
    usual = reference_job(size, epsilon, facts, data.task, labels)
    held = accounting.reference_filter(epsilon, job.delta, usual.sample_rate, usual.steps)
    noise = NEXT_TO_NONE if unbounded else accounting.calibrate(job.epsilon, job.delta, held, parts(phases))
    if job.noise_of is not None:
        large = replace(job, numbers=job.numbers | {"batch_size": job.noise_of}, noise_of=None)
        (last,) = program(large, data).phases
        noise = last.mechanism.noise_multiplier * phases[-1].expected_batch / job.noise_of
    wanted = options.model_dump(mode="json")
    return Program(
        method=method,
        options=wanted,
        unit="user" if data.owners else "record",
        max_length=data.max_length,
        seed=job.seed,
        head="words" if asked.head != "random" and are_words(data.task, data.labels) else "random",
        phases=scaled(phases, noise),
    )


def commands(job: Job, data: Data) -> Commands:
    """train(): the score of what leaves, seconds and peak bytes of the job. untrained(): the score before. bleu(): of
    what leaves, after train(), of a language model on so many prompts.
    inference(): peak bytes of evaluating the model. weights(): bytes of the model. speed(): seconds of scoring what
    leaves, after train(). signal(): of a step's mean to its noise, before train()."""
    made, device = program(job, data), torch.device("cpu")
    tokenizer = load_tokenizer(job.base)
    task = make_task(data.task, tokenizer, labels=data.labels, max_length=data.max_length)
    trainer = get_trainer(made.method)
    words = made.head == "words"
    base = build_model(data.task, job.base, data.labels, seed=made.seed, words=words)
    model = trainer.attach(base, made.options, task=data.task, seed=made.seed)
    if words:
        start_from_words(model, tokenizer, data.labels)
    records = task.encode(data.train.columns, data.train.labels or ())
    owners = np.asarray(data.owners) if data.owners else None
    began: list[float] = []
    left: list[Any] = []
    checkpoint.dumps = lambda run: b""  # its bytes are the same for every way to train the same weights

    def authorise(phase: int, count: int) -> int:
        began.append(clock(device))
        return count

    def train() -> None:
        run(
            model=model,
            task=task,
            records=records,
            program=made,
            authorise=authorise,
            save=lambda data: None,
            should_stop=lambda: False,
            begin=partial(trainer.begin, task=data.task),
            learns=trainer.learns,
            between=trainer.between,
            owners=owners,
        )

    def signal() -> float:
        """Of the last phase's mean at the public weights, over its noise: by the first of the units that are drawn."""
        last = made.phases[-1]
        trainer.begin(model, last, {}, task=data.task)
        learnt = trainer.learns(model, last, task)
        estimator = make_estimator(Setting(model, learnt, records, owners, made.unit, last, Speed(), lambda: False))
        estimator.rehearse()
        some = np.arange(min(last.expected_batch, estimator.units, _LOOKED_AT))
        total = estimator.sum(some, last.clip_norm, lambda: Streams().at("directions", 0))
        noise = last.mechanism.noise_multiplier * total.sensitivity * len(total.value) ** 0.5
        return float(total.value.norm()) * last.expected_batch / len(some) / noise

    def score(of: Any) -> float:
        return float(task.metrics(of, data.evaluate.columns, data.evaluate.labels or ())[data.metric])

    def whole() -> tuple[float, float, int]:
        grown = peak(train, device)
        seconds = clock(device) - began[0]
        with tempfile.TemporaryDirectory() as folder:
            about = About("base", "0" * 64, made.method, data.task, data.labels, data.max_length)
            trainer.export(model, folder, about, tokenizer=tokenizer)
            left.append(load_export(folder, job.base)[0])
        return score(left[0]), seconds, grown

    def speed() -> float:
        times = []
        for _ in range(_INFERENCES):
            before = clock(device)
            score(left[0])
            times.append(clock(device) - before)
        return min(times)

    return {
        "train": whole,
        "untrained": lambda: score(model),
        "inference": lambda: peak(lambda: score(model), device),
        "weights": lambda: sum(p.numel() * p.element_size() for p in model.parameters()),
        "speed": speed,
        "bleu": lambda prompts: bleu(left[0], task, tokenizer, data.evaluate.columns, prompts),
        "signal": signal,
        "zeros": lambda: _zeros(left[0]),
    }


def _zeros(model: Any) -> float:
    """Share of exact zeros in the matrices of the layers."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and any(n.isdecimal() for n in name.split("."))]
    return sum(int((p == 0).sum()) for p in inside) / sum(p.numel() for p in inside)
