"""Do the defaults lose against the best of a grid?

{set}[rows]/eps{1,8}/point {...}/accuracy           each point of the grid, on rows of the training file kept apart
{set}[rows]/eps{1,8}/{best of the grid,preset}/...  both again with fresh seeds, on the test rows
{set}[rows]/eps{1,8}/difference                     preset less grid, the mean over pairs of runs with one seed; its
                                                    standard error over them stands beside it

A grid's best is picked by one run each, so it is picked among lucky ones too: that is why both run again. Nobody with
private rows could look at a grid without paying for each of its points: this is for public ones.

Data: --mr, --sst2, --banking77 or --medquad FOLDER, as benchmarks/utility.py has them; with none of them made-up notes.
--json FILE is read first: what it holds is not measured again. --quick trains two narrow layers of random weights.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from math import sqrt
from pathlib import Path

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.common import Figure, held, parser, report, save, versions
from benchmarks.training.jobs import BUILT_IN, Data, held_back, narrow, sst2
from benchmarks.utility import ALL_ROWS, SETS, job, private, value_of
from dpcore.terms.presets import DEFAULT_PRESET

NAME = "grid"
POINTS = ["steps=30,100", "learning_rate=0.003,0.01,0.03"]
QUICK = ["steps=1,2"]


def points(axes: Sequence[str]) -> list[dict[str, object]]:
    """All combinations of name=value,value,... ."""
    named = dict(axis.split("=", 1) for axis in axes)
    choices = [[value_of(text) for text in values.split(",")] for values in named.values()]
    return [dict(zip(named, chosen, strict=True)) for chosen in product(*choices)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    for name in SETS:
        made.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    made.add_argument("--rows", type=int, default=500, help="to train on (500)")
    made.add_argument("--epsilons", nargs="+", type=float, default=[1.0, 8.0], help="(1 8)")
    made.add_argument("--grid", nargs="+", default=POINTS, metavar="NAME=V,V", help=f"({' '.join(POINTS)})")
    made.add_argument("--seeds", type=int, default=3, help="fresh ones, of each of both (3)")
    made.add_argument("--threads", type=int, default=2, help="of each process (2)")
    options = made.parse_args(arguments)

    temporary = tempfile.TemporaryDirectory()
    base = narrow(Path(temporary.name)) if options.quick else BUILT_IN
    folders = {name: getattr(options, name) for name in SETS}
    chosen = {name: SETS[name](folder, ALL_ROWS) for name, folder in folders.items() if folder is not None}
    if not chosen:
        chosen = {"notes": sst2(None, 200 if options.quick else options.rows)}
    grid = points(QUICK if options.quick else options.grid)
    known = {figure.figure: figure for figure in held(options.json) if "seed" in figure.detail}
    found: list[Figure] = []

    def run(figure: str, data: Data, epsilon: float, own: dict[str, object], seed: int) -> float:
        if figure not in known:
            wanted = job(DEFAULT_PRESET, epsilon, len(data.train), own, seed, base)
            score, detail = private(wanted, data, options.threads)
            about = {"rows": len(data.train), "seed": seed, **detail, **versions("torch", "transformers")}
            known[figure] = Figure(NAME, figure, score, data.metric, None, about)
            sys.stderr.write(f"{figure} {score:.4f}\n")
            save(list(known.values()), options.json)
        return known[figure].value

    for name, whole in chosen.items():
        apart, test = held_back(whole).first(options.rows), whole.first(options.rows)
        for epsilon in [8.0] if options.quick else options.epsilons:
            case = f"{name}[{options.rows}]/eps{epsilon:g}"
            tried = [run(f"{case}/point {_written(own)}", apart, epsilon, own, 0) for own in grid]
            own = grid[tried.index(max(tried))]
            best = _written(own)
            # Seeds that no point was picked by.
            seeds = range(1, 2 if options.quick else 1 + options.seeds)
            picked = [run(f"{case}/best of the grid {best}/seed {s}", test, epsilon, own, s) for s in seeds]
            preset = [run(f"{case}/{DEFAULT_PRESET}/seed {s}", test, epsilon, {}, s) for s in seeds]
            apart_by = [ours - theirs for ours, theirs in zip(preset, picked, strict=True)]
            error = statistics.stdev(apart_by) / sqrt(len(apart_by)) if len(apart_by) > 1 else None
            detail: dict[str, object] = {"best": best, "preset": preset, "grid": picked, "standard_error": error}
            found.append(Figure(NAME, f"{case}/difference", statistics.mean(apart_by), "accuracy", None, detail))
    report([*known.values(), *found], options.json)


def _written(own: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in own.items())


if __name__ == "__main__":
    main()
