"""What do jobs of other shapes give: without a gradient (zo), and of two phases (X+BiTFiT), beside those that they are
like?

sst2/{lora,zo,zo-all,side,reversible,bitfit,full,x-bitfit}/accuracy   on the public evaluation rows, at the same epsilon
.../seconds                                     of training, rehearsal apart
.../peak_bytes                                  what the process grows by in the data phase, over the model itself, less
                                                what a checkpoint takes while it is saved: twice the trained weights
.../over_inference                              weights and those bytes over weights and what evaluating the model takes

Every number of a job but epsilon, what --steps says and the steps of x-bitfit's first phase (50) is the service's own
default. With --sst2
FOLDER on its train.tsv and dev.tsv, the first --rows of them; without on made-up notes. The model is the built-in one.
Each job runs in a process of its own, one after the other. --json FILE is read first: figures that it holds are not
measured again, so that a run that was cut off goes on.
"""

import csv
import json
import sys
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.common import Figure, parser, report, save, versions
from benchmarks.training.processes import Child, Commands, clock, peak
from benchmarks.training.texts import TOKENIZER
from cli.demo_data import notes as made_up
from dpcore import checkpoint
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.run import run
from dpcore.tasks import make_task
from dpcore.terms import accounting
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import get_method
from dpcore.terms.program import Program, parts, scaled

NAME = "phases"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "zo": ("zo", {}),
    "zo-all": ("zo", {"weights": "all"}),
    "side": ("side", {}),
    "reversible": ("reversible", {}),
    "bitfit": ("bitfit", {}),
    "full": ("full", {}),
    "x-bitfit": ("bitfit", {"full_steps": 50}),
}
DELTA, MAX_LENGTH, LABELS = 1e-5, 128, ("negative", "positive")
FIGURES = {"accuracy": "share", "seconds": "s", "peak_bytes": "bytes", "over_inference": "ratio"}
QUICK_STEPS = 2

Rows = list[tuple[str, int]]


def read(folder: Path | None, count: int) -> tuple[Rows, Rows]:
    """Rows to train on and to evaluate on."""
    if folder is None:
        rows = made_up(count + 200)
        found = [(text, int(label == rows[0][1])) for text, label in rows]
        return found[:count], found[count:]
    both = []
    for name in ("train", "dev"):
        with (folder / f"{name}.tsv").open(encoding="utf-8", newline="") as lines:
            table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            both.append([(row["sentence"], int(row["label"])) for row in table])
    return both[0][:count], both[1]


def program(case: str, epsilon: float, size: int, steps: int | None) -> Program:
    """The job as the service would plan it, on a budget of this epsilon that is made with the file."""
    name, asked = CASES[case]
    spec, facts = get_method(name), read_facts(_folder())
    if steps is not None and "full_steps" in asked:
        asked = asked | {"full_steps": steps}
    options = spec.Options.model_validate(asked)
    request = spec.Request() if steps is None else spec.Request(steps=steps)
    numbers = spec.resolve(request, options, task="classification", declared_size=size, epsilon=epsilon, facts=facts)
    phases = spec.phases(options, numbers, declared_size=size)
    usual = get_method("lora")
    plain = usual.resolve(
        usual.Request(), usual.Options(), task="classification", declared_size=size, epsilon=epsilon, facts=facts
    )
    held = accounting.reference_filter(epsilon, DELTA, plain.batch_size / size, plain.steps)
    noise = accounting.calibrate(epsilon, DELTA, held, parts(phases))
    wanted = options.model_dump(mode="json")
    return Program(method=name, options=wanted, max_length=MAX_LENGTH, phases=scaled(phases, noise))


def commands(case: str, epsilon: float, train: Rows, dev: Rows, steps: int | None) -> Commands:
    """train(): accuracy, seconds and peak bytes of the job. inference(): peak bytes of evaluating the model. weights():
    bytes of the model."""
    made, device = program(case, epsilon, len(train), steps), torch.device("cpu")
    task = make_task("classification", load_tokenizer(_folder()), labels=LABELS, max_length=MAX_LENGTH)
    trainer = get_trainer(made.method)
    base = build_model("classification", _folder(), LABELS, seed=made.seed)
    model = trainer.attach(base, made.options, task="classification", seed=made.seed)
    records = task.encode({"text": [text for text, _ in train]}, [label for _, label in train])
    texts, labels = {"text": [text for text, _ in dev]}, [label for _, label in dev]
    began: list[float] = []
    checkpoint.dumps = lambda run: b""  # its bytes are the same for every way to train the same weights

    def authorise(phase: int, count: int) -> int:
        began.append(clock(device))
        return count

    def job() -> None:
        run(
            model=model,
            task=task,
            records=records,
            program=made,
            authorise=authorise,
            save=lambda data: None,
            should_stop=lambda: False,
            begin=partial(trainer.begin, task="classification"),
            learns=trainer.learns,
            between=trainer.between,
        )

    def whole() -> tuple[float, float, int]:
        grown = peak(job, device)
        seconds = clock(device) - began[0]
        return task.metrics(model, texts, labels)["accuracy"], seconds, grown

    def inference() -> int:
        return peak(lambda: task.metrics(model, texts, labels), device)

    def weights() -> int:
        return sum(p.numel() * p.element_size() for p in model.parameters())

    return {"train": whole, "inference": inference, "weights": weights}


def _folder() -> Path:
    return Path(str(files(TOKENIZER) / "model"))


def measure(case: str, epsilon: float, rows: tuple[Rows, Rows], steps: int | None, threads: int) -> list[Figure]:
    """The figures of one job."""
    child = Child(commands, case, epsilon, *rows, steps, threads=threads)
    try:
        child.ready()
        inference, weights = child.ask("inference"), child.ask("weights")
        accuracy, seconds, grown = child.ask("train")
    finally:
        child.stop()
    made = program(case, epsilon, len(rows[0]), steps)
    detail: dict[str, object] = {
        "epsilon": epsilon,
        "rows": len(rows[0]),
        "steps": [phase.steps for phase in made.phases],
        "noise": made.phases[0].mechanism.noise_multiplier,
        "inference_bytes": inference,
        "weight_bytes": weights,
        "threads": threads,
        **versions("torch", "transformers", "peft"),
    }
    values = {
        "accuracy": accuracy,
        "seconds": seconds,
        "peak_bytes": grown,
        "over_inference": (weights + grown) / (weights + inference),
    }
    return [Figure(NAME, f"sst2/{case}/{name}", values[name], unit, None, detail) for name, unit in FIGURES.items()]


def held(file: Path | None) -> list[Figure]:
    """What an earlier run of this benchmark left."""
    if file is None or not file.is_file():
        return []
    return [Figure(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    made.add_argument("--sst2", type=Path, metavar="FOLDER", help="with train.tsv and dev.tsv")
    made.add_argument("--rows", type=int, default=10_000, help="to train on (10000)")
    made.add_argument("--epsilon", type=float, default=8.0, help="of each job (8)")
    made.add_argument("--steps", type=int, help="of each phase, in place of the service's own")
    made.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="which to run")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each process")
    options = made.parse_args(arguments)
    steps = QUICK_STEPS if options.quick else options.steps
    rows = read(options.sst2, 200 if options.quick else options.rows)
    figures = held(options.json)
    known = {figure.figure for figure in figures}
    for case in options.cases:
        if f"sst2/{case}/accuracy" not in known:
            figures += measure(case, options.epsilon, rows, steps, options.threads)
            sys.stderr.write(f"{case} done\n")
            save(figures, options.json)
    report(figures, options.json)


if __name__ == "__main__":
    main()
