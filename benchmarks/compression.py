"""What does compression under privacy cost, and what does it bring? All jobs have the same total epsilon.

{sst2,qnli}/{dense,unstructured,structured,student,distilled}/accuracy   of what leaves, the mean over seeds
.../seconds                              of training, rehearsal apart
{sst2,qnli}/{unstructured,structured}/of_dense      accuracy above the most frequent label's, over that of dense
.../unstructured/zeros                   share of exact zeros in the layers' matrices, of what leaves
.../structured/faster                    seconds of scoring with the dense model over those with what leaves
.../distilled/more_than_student          accuracy of the distilled student less that of the same student trained alone,
                                         paired by seed; the detail has the standard error
e2e/{student,distilled}/perplexity       the same of a language model

dense: all weights of the base model. unstructured: half of the entries of its layers' matrices pruned on a schedule.
structured: half of its layers dropped on one. student: half of its layers from the start. distilled: that student and a
teacher, which is paid for by the same epsilon. The numbers that are not named (--steps, --batch) are the service's own.

Data: --sst2 FOLDER (train.tsv, dev.tsv; the first --rows), --qnli FOLDER (train_from_dev.tsv, eval_from_dev.tsv),
--e2e FOLDER (train.tsv, dev.tsv) with --writer FOLDER, a causal language model; with none of them made-up notes. Each
job runs in a process of its own, one after the other. --json FILE is read first: what it holds is not measured again,
so that a run that was cut off goes on. --quick trains two narrow layers of random weights.
"""

import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.common import Figure, held, paired, parser, report, save, versions
from benchmarks.training.jobs import BUILT_IN, Data, Job, commands, completions, narrow, program, qnli, sst2
from benchmarks.training.processes import Child

NAME = "compression"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("full", {}),
    "unstructured": ("prune", {"sparsity": 0.5}),
    "structured": ("prune", {"kind": "structured"}),
    "student": ("prune", {"kind": "structured", "when": "start"}),
    "distilled": ("distill", {}),
}
OF_A_WRITER = ("student", "distilled")
QUICK_STEPS, EVALUATED = 2, 600


@dataclass(frozen=True)
class Result:
    """Of one job."""

    score: float
    seconds: float
    speed: float
    """Seconds of scoring what leaves."""
    zeros: float


def measure(made: Job, data: Data, threads: int) -> Result:
    """Train, and score what leaves."""
    child = Child(commands, made, data, threads=threads)
    try:
        child.ready()
        score, seconds, _ = child.ask("train")
        return Result(score, seconds, child.ask("speed"), child.ask("zeros"))
    finally:
        child.stop()


def job(case: str, epsilon: float, size: int, numbers: dict[str, Any], seed: int, base: Path) -> Job:
    """delta is a tenth of one record's part."""
    method, options = CASES[case]
    if method == "distill" and "steps" in numbers:
        numbers = numbers | {"teacher_steps": numbers["steps"]}
    return Job(method, epsilon, options, numbers, 1 / (10 * size), seed, base)


def compare(name: str, data: Data, of: dict[str, list[Figure]]) -> list[Figure]:
    """What the cases' figures of one kind of data come to, side by side."""
    found = []

    def add(figure: str, value: float, unit: str, **detail: object) -> None:
        found.append(Figure(NAME, f"{name}/{figure}", value, unit, None, detail))

    def mean(case: str, what: str = "score") -> float:
        return statistics.mean(float(str(figure.detail[what])) for figure in of[case])

    for case, figures in of.items():
        scores = [figure.value for figure in figures]
        shared: dict[str, object] = {**figures[0].detail, "seeds": len(scores), "scores": scores}
        add(f"{case}/{data.metric}", statistics.mean(scores), "share" if data.labels else "", **shared)
        add(f"{case}/seconds", mean(case, "seconds"), "s")
    if data.labels and data.evaluate.labels and "dense" in of:
        base = max(Counter(data.evaluate.labels).values()) / len(data.evaluate)
        for case in [case for case in ("unstructured", "structured") if case in of]:
            add(f"{case}/of_dense", (mean(case) - base) / (mean("dense") - base), "ratio", majority=base)
        if "structured" in of:
            add("structured/faster", mean("dense", "speed") / mean("structured", "speed"), "times")
    if "unstructured" in of:
        add("unstructured/zeros", min(float(str(f.detail["zeros"])) for f in of["unstructured"]), "share")
    if {"student", "distilled"} <= of.keys():
        distilled, alone = ([figure.value for figure in of[case]] for case in ("distilled", "student"))
        more, error = paired(distilled, alone)
        add("distilled/more_than_student", more, "", standard_error=error)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    made.add_argument("--sst2", type=Path, metavar="FOLDER", help="with train.tsv and dev.tsv")
    made.add_argument("--qnli", type=Path, metavar="FOLDER", help="with train_from_dev.tsv and eval_from_dev.tsv")
    made.add_argument("--e2e", type=Path, metavar="FOLDER", help="with train.tsv and dev.tsv")
    made.add_argument("--writer", type=Path, metavar="FOLDER", help="a causal language model, for --e2e")
    made.add_argument("--rows", type=int, default=10_000, help="of SST-2 and E2E, to train on (10000)")
    made.add_argument("--epsilon", type=float, default=4.0, help="of each job, in total (4)")
    made.add_argument("--steps", type=int, help="of each phase, in place of the service's own")
    made.add_argument("--batch", type=int, help="expected, in place of the service's own")
    made.add_argument("--seeds", type=int, default=3, help="jobs of each case (3)")
    made.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="which to run")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each process")
    options = made.parse_args(arguments)
    if (options.e2e is None) != (options.writer is None):
        made.error("--e2e and --writer belong together")

    chosen: dict[str, tuple[Data, Path]] = {}
    temporary = tempfile.TemporaryDirectory()
    base = narrow(Path(temporary.name)) if options.quick else BUILT_IN
    if options.sst2 or not (options.qnli or options.e2e):
        chosen["sst2"] = sst2(options.sst2, 200 if options.quick else options.rows), base
    if options.qnli:
        chosen["qnli"] = qnli(options.qnli), base
    if options.e2e:
        chosen["e2e"] = completions(options.e2e, options.rows, EVALUATED), options.writer
    numbers = {"steps": QUICK_STEPS if options.quick else options.steps, "batch_size": options.batch}
    numbers = {name: value for name, value in numbers.items() if value is not None}

    known = {figure.figure: figure for figure in held(options.json) if "seed" in figure.detail}
    compared: list[Figure] = []
    for name, (data, base) in chosen.items():
        of: dict[str, list[Figure]] = {}
        for seed in range(1 if options.quick else options.seeds):
            for case in options.cases:
                if not data.labels and case not in OF_A_WRITER:
                    continue
                figure = f"{name}/{case}/seed {seed}"
                if figure not in known:
                    wanted = job(case, options.epsilon, len(data.train), numbers, seed, base)
                    known[figure] = one(figure, wanted, data, options.threads)
                    sys.stderr.write(f"{figure} {known[figure].value:.4f}\n")
                    save(list(known.values()), options.json)
                of.setdefault(case, []).append(known[figure])
        compared += compare(name, data, of)
    report([*known.values(), *compared], options.json)


def one(figure: str, wanted: Job, data: Data, threads: int) -> Figure:
    """What a job scores, with everything else about it in the detail."""
    found, planned = measure(wanted, data, threads), program(wanted, data)
    detail: dict[str, object] = {
        "epsilon": wanted.epsilon,
        "rows": len(data.train),
        "steps": [phase.steps for phase in planned.phases],
        "noise": planned.phases[0].mechanism.noise_multiplier,
        "seed": wanted.seed,
        "seconds": found.seconds,
        "speed": found.speed,
        "zeros": found.zeros,
        "score": found.score,
        "threads": threads,
        **versions("torch", "transformers"),
    }
    return replace(Figure(NAME, figure, found.score, data.metric), detail=detail)


if __name__ == "__main__":
    main()
