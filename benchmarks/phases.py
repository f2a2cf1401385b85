"""What do jobs of other shapes give: without a gradient (zo), and of two phases (X+BiTFiT), beside those that they are
like?

sst2/{lora,side,reversible,zo,zo-all,bitfit,full,x-bitfit}/accuracy   of what leaves, on the public evaluation rows, at
                                                the same epsilon
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

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.common import Figure, held, parser, report, save, versions
from benchmarks.training.jobs import Data, Job, commands, program, sst2
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


def job(case: str, epsilon: float, steps: int | None) -> Job:
    """steps: of each phase, in place of the service's own."""
    name, options = CASES[case]
    if steps is not None and "full_steps" in options:
        options = options | {"full_steps": steps}
    return Job(name, epsilon, options, {} if steps is None else {"steps": steps})


def measure(case: str, made: Job, data: Data, threads: int) -> list[Figure]:
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
    data = sst2(options.sst2, 200 if options.quick else options.rows)
    figures = held(options.json)
    known = {figure.figure for figure in figures}
    for case in options.cases:
        if f"sst2/{case}/accuracy" not in known:
            figures += measure(case, job(case, options.epsilon, steps), data, options.threads)
            sys.stderr.write(f"{case} done\n")
            save(figures, options.json)
    report(figures, options.json)


if __name__ == "__main__":
    main()
