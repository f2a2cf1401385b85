"""What do jobs of other shapes give: without a gradient (zo), and of two phases (X+BiTFiT), beside those that they are
like?

sst2/{lora,side,reversible,zo,zo-all,bitfit,full,x-bitfit}/seed {0,1,...}/accuracy   of what leaves, on the public
                        evaluation rows, at the same epsilon
.../seconds             of training, rehearsal apart
.../peak_bytes          what the process grows by in the data phase, over the model itself, less what a checkpoint takes
                        while it is saved: twice the trained weights
.../over_inference      weights and those bytes over weights and what evaluating the model takes
sst2/{...}/accuracy     the mean over seeds
.../more_than_lora      its mean difference from lora's, paired by seed; the detail has the standard error

Every number of a job but epsilon, what --steps says and the steps of x-bitfit's first phase (50) is the service's own
default. With --sst2
FOLDER on its train.tsv and dev.tsv, the first --rows of them; without on made-up notes. The model is the built-in one;
--quick trains two narrow layers of random weights.
Each job runs in a process of its own, one after the other. --json FILE is read first: figures that it holds are not
measured again, so that a run that was cut off goes on.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.common import Figure, held, paired, parser, report, save, versions
from benchmarks.training.jobs import BUILT_IN, Data, Job, commands, narrow, program, sst2
from benchmarks.training.processes import Child

NAME = "phases"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "side": ("side", {}),
    "reversible": ("reversible", {}),
    "zo": ("zo", {}),
    "zo-all": ("zo", {"weights": "all"}),
    "bitfit": ("bitfit", {}),
    "full": ("full", {}),
    "x-bitfit": ("bitfit", {"full_steps": 50}),
}
FIGURES = {"accuracy": "share", "seconds": "s", "peak_bytes": "bytes", "over_inference": "ratio"}
QUICK_STEPS = 2


def job(case: str, epsilon: float, steps: int | None, seed: int, base: Path) -> Job:
    """steps: of each phase, in place of the service's own."""
    name, options = CASES[case]
    if steps is not None and "full_steps" in options:
        options = options | {"full_steps": steps}
    return Job(name, epsilon, options, {} if steps is None else {"steps": steps}, seed=seed, base=base)


def measure(figure: str, made: Job, data: Data, threads: int) -> list[Figure]:
    """The figures of one job."""
    child = Child(commands, made, data, threads=threads)
    try:
        child.ready()
        inference, weights = child.ask("inference"), child.ask("weights")
        accuracy, seconds, grown = child.ask("train")
    finally:
        child.stop()
    planned = program(made, data)
    detail: dict[str, object] = {
        "epsilon": made.epsilon,
        "rows": len(data.train),
        "steps": [phase.steps for phase in planned.phases],
        "noise": planned.phases[0].mechanism.noise_multiplier,
        "seed": made.seed,
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
    return [Figure(NAME, f"{figure}/{name}", values[name], unit, None, detail) for name, unit in FIGURES.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    made.add_argument("--sst2", type=Path, metavar="FOLDER", help="with train.tsv and dev.tsv")
    made.add_argument("--rows", type=int, default=10_000, help="to train on (10000)")
    made.add_argument("--epsilon", type=float, default=8.0, help="of each job (8)")
    made.add_argument("--steps", type=int, help="of each phase, in place of the service's own")
    made.add_argument("--seeds", type=int, default=1, help="jobs of each case (1)")
    made.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="which to run")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each process")
    options = made.parse_args(arguments)
    steps = QUICK_STEPS if options.quick else options.steps
    data = sst2(options.sst2, 200 if options.quick else options.rows)
    temporary = tempfile.TemporaryDirectory()
    base = narrow(Path(temporary.name)) if options.quick else BUILT_IN
    known = {figure.figure: figure for figure in held(options.json) if "seed" in figure.detail}
    scores: dict[str, list[float]] = {}
    for seed in range(1 if options.quick else options.seeds):
        for case in options.cases:
            figure = f"sst2/{case}/seed {seed}"
            if f"{figure}/accuracy" not in known:
                for found in measure(figure, job(case, options.epsilon, steps, seed, base), data, options.threads):
                    known[found.figure] = found
                sys.stderr.write(f"{figure} {known[f'{figure}/accuracy'].value:.4f}\n")
                save(list(known.values()), options.json)
            scores.setdefault(case, []).append(known[f"{figure}/accuracy"].value)
    report([*known.values(), *compare(scores)], options.json)


def compare(scores: dict[str, list[float]]) -> list[Figure]:
    """The cases over all seeds, and beside lora."""
    found = [Figure(NAME, f"sst2/{case}/accuracy", statistics.mean(of), "share") for case, of in scores.items()]
    for case in [case for case in scores if case != "lora"] if "lora" in scores else ():
        mean, error = paired(scores[case], scores["lora"])
        found.append(Figure(NAME, f"sst2/{case}/more_than_lora", mean, "", None, {"standard_error": error}))
    return found


if __name__ == "__main__":
    main()
