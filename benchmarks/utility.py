"""How good is what leaves, when a caller names a model, a file and an epsilon, and nothing else?

{sst2,banking77,mr,qnli,medquad}/{preset or method}/eps{1,3,8,inf}/accuracy    of what leaves, the mean over seeds
e2e/{preset or method}/eps{...}/perplexity                                     the same of a language model; its BLEU
{set}/ceiling/accuracy                                                         all weights without privacy: --ceiling
{set}/opacus/{...}/accuracy                                                    --opacus first steps in Opacus' loop

Beside what came stands what an estimate says would come (`expected`).

Every number of a job but epsilon is the service's own, unless --set names it: `--set head=random steps=100`, or an
option of the method as `--set r=16`; it is then part of the figure's name. eps inf: the same steps, clipped and without
noise.

Data: --sst2, --banking77, --mr, --qnli, --medquad, --e2e FOLDER, with the files of the public releases (train.tsv and
dev.tsv or test.tsv; QNLI train_from_dev.tsv and eval_from_dev.tsv; MedQuAD train.jsonl and test.jsonl; E2E needs
--writer FOLDER, a causal language model); with none of them made-up notes. --rows takes the first so many. --choosing
scores on every tenth row of the training file, which is then not trained on, and leaves the test rows alone: what is
chosen by a figure is to be tried on other rows. --noise-of BATCH gives a step the noise, beside its own mean, of a job
with that batch: what a large batch would learn, at a fraction of its records, and no privacy. --scored takes the first
so many rows to score on. Each job runs in a process of its own, one after the other. --json FILE
is read first: what it holds is not measured again, so that a run that was cut off goes on. --quick trains two narrow
layers of random weights.
"""

import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.common import Figure, held, parser, report, save, versions
from benchmarks.training.ceiling import Plain
from benchmarks.training.ceiling import commands as without_privacy
from benchmarks.training.jobs import (
    BUILT_IN,
    Data,
    Job,
    banking77,
    commands,
    completions,
    held_back,
    medquad,
    mr,
    narrow,
    program,
    qnli,
    sst2,
)
from benchmarks.training.opacus_job import commands as opacus_commands
from benchmarks.training.processes import Child
from dpcore.terms.expectation import expected, signal_to_noise
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import DEFAULT_METHOD, get_method
from dpcore.terms.presets import DEFAULT_PRESET, PRESETS
from dpcore.terms.program import Program

NAME = "utility"
SETS = {"sst2": sst2, "banking77": banking77, "mr": mr, "qnli": qnli, "medquad": medquad}
PROMPTS = 100
"""By which BLEU is taken."""
QUICK_STEPS, EVALUATED, ALL_ROWS = 2, 600, 10**9


def job(
    method: str, epsilon: float, size: int, own: dict[str, Any], seed: int, base: Path, noise_of: int | None = None
) -> Job:
    """delta is a tenth of one record's part. own: numbers and options that are not the service's."""
    fields = get_method(DEFAULT_METHOD if method in PRESETS else method).Request.model_fields
    numbers = {name: value for name, value in own.items() if name in fields}
    options = {name: value for name, value in own.items() if name not in numbers}
    return Job(method, epsilon, options, numbers, 1 / (10 * size), seed, base, noise_of)


def asked(build: Any, *arguments: Any, threads: int, prompts: int | None = None) -> tuple[float, dict[str, object]]:
    """Score of what leaves, and of the model before, and seconds of training, of one process. prompts: also BLEU."""
    child = Child(build, *arguments, threads=threads)
    try:
        child.ready()
        untrained = child.ask("untrained")
        score, seconds, _ = child.ask("train")
        written = {} if prompts is None else {"bleu": child.ask("bleu", prompts)}
        return score, {"untrained": untrained, "seconds": seconds, **written}
    finally:
        child.stop()


def private(wanted: Job, data: Data, threads: int) -> tuple[float, dict[str, object]]:
    """A job's score, with everything that was chosen for it."""
    planned = program(wanted, data)
    prompts = None if data.labels else PROMPTS
    score, found = asked(commands, wanted, data, threads=threads, prompts=prompts)
    last = planned.phases[-1]
    return score, {
        **found,
        **_expected(planned, wanted, data),
        "steps": [phase.steps for phase in planned.phases],
        "batch": last.expected_batch,
        "learning_rate": last.learning_rate,
        "noise": last.mechanism.noise_multiplier,
        "head": planned.head,
        "options": planned.options,
    }


def _expected(planned: Program, wanted: Job, data: Data) -> dict[str, object]:
    """What an estimate of this job says would come."""
    signal = signal_to_noise(planned, read_facts(wanted.base), labels=len(data.labels), task=data.task)
    if signal is None:
        return {}
    guess = expected(signal, labels=len(data.labels), words=planned.head == "words")
    return {"signal": round(signal, 2), "expected": round(guess.accuracy, 3)}


def in_opacus(wanted: Job, data: Data, steps: int, threads: int) -> tuple[float, dict[str, object]]:
    """The score after the first steps of a job in Opacus, and the seconds that all of its steps would take."""
    (phase,) = program(wanted, data).phases
    child = Child(opacus_commands, wanted, data, threads=threads)
    try:
        child.ready()
        score, seconds = child.ask("train", steps)
    finally:
        child.stop()
    return score, {"steps": steps, "seconds": seconds, "seconds_of_all": seconds * phase.steps / steps}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    for name in SETS:
        made.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    made.add_argument("--e2e", type=Path, metavar="FOLDER", help="with train.tsv and dev.tsv")
    made.add_argument("--writer", type=Path, metavar="FOLDER", help="a causal language model, for --e2e")
    made.add_argument("--rows", type=int, default=ALL_ROWS, help="to train on (all)")
    made.add_argument("--epsilons", nargs="+", type=float, default=[1.0, 3.0, 8.0], help="inf too (1 3 8)")
    made.add_argument("--methods", nargs="+", default=[DEFAULT_PRESET], help=f"or presets ({DEFAULT_PRESET})")
    made.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="in place of the service's own")
    made.add_argument("--choosing", action="store_true", help="leave the test rows alone")
    made.add_argument("--noise-of", type=int, metavar="BATCH", help="whose noise a step has, in place of its own")
    made.add_argument("--scored", type=int, default=ALL_ROWS, help="rows to score on (all)")
    made.add_argument("--ceiling", action="store_true", help="also all weights without privacy")
    made.add_argument("--opacus", type=int, default=0, metavar="STEPS", help="also so many steps of each job in Opacus")
    made.add_argument("--seeds", type=int, default=1, help="jobs of each case (1)")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each process")
    options = made.parse_args(arguments)
    if (options.e2e is None) != (options.writer is None):
        made.error("--e2e and --writer belong together")

    temporary = tempfile.TemporaryDirectory()
    base = narrow(Path(temporary.name)) if options.quick else BUILT_IN
    chosen: dict[str, tuple[Data, Path]] = {
        name: (load(getattr(options, name), ALL_ROWS), base)
        for name, load in SETS.items()
        if getattr(options, name) is not None
    }
    if options.e2e is not None:
        chosen["e2e"] = completions(options.e2e, ALL_ROWS, EVALUATED), options.writer
    if not chosen:
        chosen["notes"] = sst2(None, 200 if options.quick else min(options.rows, 4000)), base
    if options.choosing:
        chosen = {f"{name}[choosing]": (held_back(data), model) for name, (data, model) in chosen.items()}
    chosen = {
        name: (replace(data.first(options.rows), evaluate=data.evaluate.first(options.scored)), model)
        for name, (data, model) in chosen.items()
    }
    own = dict(pair.split("=", 1) for pair in options.set)
    values = {name: value_of(text) for name, text in own.items()} | ({"steps": QUICK_STEPS} if options.quick else {})
    named = own | ({} if options.noise_of is None else {"noise_of": str(options.noise_of)})
    named |= {} if options.scored == ALL_ROWS else {"scored": str(options.scored)}
    otherwise = "".join(f",{name}={text}" for name, text in sorted(named.items()))
    rows = "" if options.rows == ALL_ROWS else f"[{options.rows}]"
    epsilons = [8.0] if options.quick else options.epsilons

    known = {figure.figure: figure for figure in held(options.json) if "seed" in figure.detail}
    means: list[Figure] = []

    def one(case: str, data: Data, seed: int, measure: Any) -> Figure:
        figure = f"{case}/seed {seed}"
        if figure not in known:
            score, detail = measure()
            about = {"rows": len(data.train), "seed": seed, "threads": options.threads, **detail}
            known[figure] = Figure(NAME, figure, score, data.metric, None, about | versions("torch", "transformers"))
            sys.stderr.write(f"{figure} {score:.4f}\n")
            save(list(known.values()), options.json)
        return known[figure]

    def mean(case: str, data: Data, found: Sequence[Figure]) -> None:
        scores = [figure.value for figure in found]
        detail: dict[str, object] = {"seeds": len(scores), "scores": scores}
        if len(scores) > 1:
            detail["deviation"] = statistics.stdev(scores)
        means.append(Figure(NAME, f"{case}/{data.metric}", statistics.mean(scores), "", None, detail))

    for name, (data, model) in chosen.items():
        for method in options.methods:
            for epsilon in epsilons:
                case = f"{name}{rows}/{method}{otherwise}/eps{epsilon:g}"
                found = []
                for seed in range(options.seeds):
                    wanted = job(method, epsilon, len(data.train), values, seed, model, options.noise_of)
                    found.append(one(case, data, seed, lambda w=wanted, d=data: private(w, d, options.threads)))
                mean(case, data, found)
        if options.opacus:
            for epsilon in epsilons:
                wanted = job(options.methods[0], epsilon, len(data.train), values, 0, model)
                case = f"{name}{rows}/opacus/{options.methods[0]}{otherwise}/eps{epsilon:g}"
                steps = options.opacus
                found = [one(case, data, 0, lambda w=wanted, d=data, s=steps: in_opacus(w, d, s, options.threads))]
                mean(case, data, found)
        if options.ceiling:
            case = f"{name}{rows}/ceiling"
            plain = Plain(model, 0, epochs=1 if options.quick else 2)
            mean(case, data, [one(case, data, 0, lambda p=plain, d=data: _bare(p, d, options.threads))])
    report([*known.values(), *means], options.json)


def _bare(plain: Plain, data: Data, threads: int) -> tuple[float, dict[str, object]]:
    score, found = asked(without_privacy, plain, data, threads=threads)
    return score, {**found, "epochs": plain.epochs, "batch": plain.batch, "learning_rate": plain.rate}


def value_of(text: str) -> Any:
    """As JSON where it is any, such as 16 or 0.01; a word otherwise."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if not isinstance(value, float) or math.isfinite(value) else text


if __name__ == "__main__":
    main()
