"""What does learning from five silos cost, each of which noises what it sends itself?

banking77/{ffa,ffa-inf,ffa-central,lora,alternating}/accuracy    of what is left, on the test rows, mean of seeds
.../below_inf           accuracy of ffa-inf less the case's, paired by seed; the detail has the standard error
.../payload_ratio       bytes of the model over those of a message
banking77/crossover     the rank from which on both factors of a layer are as large as the layer
banking77/ffa/more_than_lora      mean difference, paired by seed
medquad/{ffa,ffa-inf,lora}/perplexity    of answers, the same; before: of the base model
.../over_inf            the perplexity over that of ffa-inf

ffa: B alone trains (`factors` a-frozen). lora: both factors. alternating: in turn. -inf: the same rounds and steps with
neither clipping nor noise. -central: all rows in one file on one budget, with the batch of all silos together. Rows are
parted by a Dirichlet distribution with 0.5 over the labels (Banking77) or collections (MedQuAD); each silo's epsilon is
its own, of a record. The model of Banking77 is the built-in one, that of MedQuAD --writer.

Data: --banking77 FOLDER (train.tsv, test.tsv); --medquad FOLDER (train.jsonl, test.jsonl) with --writer FOLDER, a
causal language model; with neither made-up notes. Each job runs in a process of its own. --json FILE is read first:
what it holds is not measured again, so that a run that was cut off goes on. --quick trains two narrow layers of random
weights.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])


from benchmarks.common import Figure, held, paired, parser, report, save, versions
from benchmarks.training.jobs import BUILT_IN, Data, narrow, sst2
from benchmarks.training.processes import Child
from benchmarks.training.silos import Came, FederatedJob, banking77, central, commands, medquad, split
from dpcore.terms.facts import read_facts
from dpcore.terms.federated.options import Factors, Options
from dpcore.terms.federated.payload import crossover

NAME = "federated"
SILOS = 5


@dataclass(frozen=True)
class Case:
    """How one job differs from the others."""

    factors: Factors = "a-frozen"
    private: bool = True
    together: bool = False


CASES = {
    "ffa": Case(),
    "ffa-inf": Case(private=False),
    "ffa-central": Case(together=True),
    "lora": Case(factors="both"),
    "alternating": Case(factors="alternating"),
}
OF_A_WRITER = ("ffa", "ffa-inf", "lora")


@dataclass(frozen=True)
class Shape:
    """How long a job is. batch: of each silo."""

    rounds: int
    local_steps: int
    batch: int
    server_rate: float
    records_per_second: float
    """Of one quiet thread, about."""

    @property
    def minutes(self) -> float:
        """Of a job, about."""
        return self.rounds * self.local_steps * self.batch * SILOS / self.records_per_second / 60


CLASSIFIER = Shape(rounds=25, local_steps=1, batch=400, server_rate=0.03, records_per_second=90)
WRITER = Shape(rounds=20, local_steps=1, batch=100, server_rate=0.01, records_per_second=20)
QUICK = Shape(rounds=2, local_steps=1, batch=10, server_rate=0.03, records_per_second=1000)
RATE, BARE_RATE = 0.5, 0.1
"""Of local steps, whose gradients are of about length one, and where they are as long as they are."""


def job(case: Case, shape: Shape, epsilon: float, seed: int, base: Path) -> FederatedJob:
    """A case as a caller would ask for it."""
    options = Options(
        factors=case.factors,
        rounds=shape.rounds,
        local_steps=shape.local_steps,
        server_learning_rate=shape.server_rate,
    )
    numbers = {
        "batch_size": shape.batch * (SILOS if case.together else 1),
        "learning_rate": RATE if case.private else BARE_RATE,
    }
    made = FederatedJob(options, numbers, epsilon if case.private else None, base, seed=seed)
    return central(made) if case.together else made


def one(figure: str, case: Case, made: FederatedJob, data: Data, kinds: Sequence[object], threads: int) -> Figure:
    """What a job scores, with everything else about it in the detail."""
    parts = [data.train] if case.together else split(data.train, kinds, SILOS, made.seed)
    child = Child(commands, made, data, parts, threads=threads)
    try:
        child.ready()
        came: Came = child.ask("train")
    finally:
        child.stop()
    detail: dict[str, object] = {
        "epsilon": made.epsilon,
        "delta": made.delta,
        "seed": made.seed,
        "sizes": list(came.sizes),
        "noise": list(came.noise),
        "rounds": made.options.rounds,
        "local_steps": made.options.local_steps,
        **made.numbers,
        "server": f"{made.options.server} {made.options.rate:g}",
        "r": made.options.r,
        "before": came.before,
        "seconds": came.seconds,
        "message_bytes": came.message_bytes,
        "model_bytes": came.model_bytes,
        "threads": threads,
        **versions("torch", "transformers", "peft"),
    }
    return Figure(NAME, figure, came.score, data.metric, None, detail)


def compare(name: str, data: Data, of: dict[str, list[Figure]], base: Path) -> list[Figure]:
    """What the cases' figures come to, side by side."""
    found = []

    def add(figure: str, value: float, unit: str, **detail: object) -> None:
        found.append(Figure(NAME, f"{name}/{figure}", value, unit, None, detail))

    values = {case: [figure.value for figure in figures] for case, figures in of.items()}
    for case, figures in of.items():
        scores, about = values[case], figures[0].detail
        deviation = statistics.stdev(scores) if len(scores) > 1 else None
        add(f"{case}/{data.metric}", statistics.mean(scores), "", seeds=len(scores), deviation=deviation)
        add(f"{case}/payload_ratio", float(str(about["model_bytes"])) / float(str(about["message_bytes"])), "times")
        if "ffa-inf" in of and case != "ffa-inf":
            if data.labels:
                below, error = paired(values["ffa-inf"], scores)
                add(f"{case}/below_inf", below, "", standard_error=error)
            else:
                add(f"{case}/over_inf", statistics.mean(scores) / statistics.mean(values["ffa-inf"]), "ratio")
    if {"ffa", "lora"} <= of.keys():
        more, error = paired(values["ffa"], values["lora"])
        add("ffa/more_than_lora", more, "", standard_error=error)
    facts = read_facts(base)
    outputs = facts.hidden_size if data.labels else 3 * facts.hidden_size  # GPT-2's query, key and value are one
    add("crossover", crossover(facts.hidden_size, outputs), "rank", inputs=facts.hidden_size, outputs=outputs)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    made.add_argument("--banking77", type=Path, metavar="FOLDER", help="with train.tsv and test.tsv")
    made.add_argument("--medquad", type=Path, metavar="FOLDER", help="with train.jsonl and test.jsonl")
    made.add_argument("--writer", type=Path, metavar="FOLDER", help="a causal language model, for --medquad")
    made.add_argument("--epsilon", type=float, default=8.0, help="of each silo (8)")
    made.add_argument("--seeds", type=int, default=1, help="jobs of each case (1)")
    made.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="which to run")
    made.add_argument("--threads", type=int, default=1, help="of each job's process (1)")
    options = made.parse_args(arguments)
    if (options.medquad is None) != (options.writer is None):
        made.error("--medquad and --writer belong together")

    chosen: dict[str, tuple[Data, Sequence[object], Shape, Path]] = {}
    temporary = tempfile.TemporaryDirectory()
    if options.banking77:
        data = banking77(options.banking77, 64)
        chosen["banking77"] = data, data.train.labels or (), CLASSIFIER, BUILT_IN
    if options.medquad:
        data, collections = medquad(options.medquad, 300, 64)
        chosen["medquad"] = data, collections, WRITER, options.writer
    if not chosen:
        data = sst2(None, 300 if options.quick else 5_000)
        base = narrow(Path(temporary.name)) if options.quick else BUILT_IN
        chosen["notes"] = data, data.train.labels or (), CLASSIFIER, base
    chosen = {n: (*of[:2], QUICK if options.quick else of[2], of[3]) for n, of in chosen.items()}

    known = {figure.figure: figure for figure in held(options.json) if "seed" in figure.detail}
    wanted = [
        (name, case, f"{name}/{case}/seed {seed}", seed)
        for name, (data, *_) in chosen.items()
        for seed in range(1 if options.quick else options.seeds)
        for case in options.cases
        if data.labels or case in OF_A_WRITER
    ]
    minutes = sum(chosen[name][2].minutes for name, _, figure, _ in wanted if figure not in known)
    sys.stderr.write(f"about {minutes:.0f} minutes of one quiet thread\n")
    of: dict[str, dict[str, list[Figure]]] = {}
    for name, case, figure, seed in wanted:
        data, kinds, shape, base = chosen[name]
        if figure not in known:
            asked = job(CASES[case], shape, options.epsilon, seed, base)
            known[figure] = one(figure, CASES[case], asked, data, kinds, options.threads)
            sys.stderr.write(f"{figure} {known[figure].value:.4f}\n")
            save(list(known.values()), options.json)
        of.setdefault(name, {}).setdefault(case, []).append(known[figure])
    compared = [f for name, figures in of.items() for f in compare(name, chosen[name][0], figures, chosen[name][3])]
    report([*known.values(), *compared], options.json)


if __name__ == "__main__":
    main()
