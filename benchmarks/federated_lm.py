"""What do partial embedding updates, LoRA and noise-contrastive estimation bring a language model over users?

users/{full,rows,rows-lora,rows-lora-{nce,ranking},seed,private,inf}/perplexity   on users' held-out text, mean of seeds
.../payload                 bytes that a user would send in a round
.../signal_to_noise         of a round's mean update at the public weights: length of the clipped mean over the noise's
.../over_full               perplexity over that of full, paired by seed
users/public/perplexity     before any user
head/{softmax,nce}/{5000,...}       bytes that the output layer keeps for a backward pass, of 128 places
shakespeare/{rows-lora,...}/perplexity      of the last tenth of each role's speeches, --shakespeare FOLDER

A made-up population of 20,000 users (`benchmarks/training/population.py`), each of whom writes one to five texts of
twelve words, and a model that was trained on public text of another dialect. Every case has the same epsilon of a user,
the true one of this population, the same rounds and the same numbers. full: all weights, softmax. rows: a tenth of the
vocabulary by public frequency. -lora: and rank 4 beside attention; -nce: with 64 negatives, binary as the paper has it,
-ranking: by which word it is. seed, private: as rows-lora, with rows drawn, or counted privately.
inf: full with neither clipping that matters nor noise.

--json FILE is read first: what it holds is not measured again. --quick has 200 users, two rounds and two cases.
"""

import csv
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from benchmarks.common import Figure, held, paired, parser, report, save, versions
from benchmarks.training import population as people
from benchmarks.training.jobs import Data, Job, Rows, commands, program
from benchmarks.training.processes import Child
from dpcore.mechanism.keystream import Keystream
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks.frozen_head import target_losses
from dpcore.tasks.losses import Loss
from dpcore.tasks.nce import Nce
from dpcore.tasks.text import Texts
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import federated_lm

NAME = "federated_lm"
SLOW, FAST = {"server_learning_rate": 1.0}, {"server_learning_rate": 4.0}
"""For each case the better of the two, by one shorter run of seed 0: a server that moves all weights four times as far
diverges, and one that moves few of them once as far hardly leaves its place."""
LORA = {"r": 4, "alpha": 8.0, **FAST}
CASES: dict[str, dict[str, Any]] = {
    "full": {"rows": "all", "blocks": "all", **SLOW},
    "rows": {"blocks": "all", **SLOW},
    "rows-lora": LORA,
    "rows-lora-nce": {**LORA, "loss": "nce", **SLOW},
    "rows-lora-ranking": {**LORA, "loss": "ranking"},
    "seed": {**LORA, "chosen_by": "seed"},
    "private": {**LORA, "chosen_by": "private"},
    "inf": {"rows": "all", "blocks": "all", **SLOW},
}
VOCABULARY, WIDTH, LAYERS, USERS = 5_000, 64, 2, 20_000
NUMBERS = {"steps": 5, "batch_size": 2_000, "learning_rate": 1.0, "clip_norm": 1.0}
LOCAL = {"local_steps": 2, "local_batch": 8, "server": "fedavg"}
VOCABULARIES, PLACES = (5_000, 10_000, 20_000, 50_000, 100_000), 128
ENDLESS = 1e6
"""An epsilon that is no promise."""


def pretrain(folder: Path, texts: Sequence[str], steps: int) -> None:
    """Plain training on public text, in place."""
    model, task = build_model("text", folder, (), seed=0), Texts(load_tokenizer(folder), 16)
    records, draw = task.encode({"text": texts}), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        now = draw.integers(0, len(records), size=128)
        task.losses(model, records, now, 16).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)


def one(figure: str, case: str, made: Job, data: Data, threads: int) -> Figure:
    """What a job scores, with everything else about it in the detail."""
    child = Child(commands, made, data, threads=threads)
    try:
        child.ready()
        before, signal = child.ask("untrained"), child.ask("signal")
        score, seconds, _ = child.ask("train")
    finally:
        child.stop()
    planned, facts = program(made, data), read_facts(made.base)
    options = federated_lm.Options.model_validate(planned.options)
    rounds = planned.phases[-1]
    detail: dict[str, object] = {
        "epsilon": None if case == "inf" else made.epsilon,
        "delta": made.delta,
        "users": data.units,
        "seed": made.seed,
        "rounds": rounds.steps,
        "expected": rounds.expected_batch,
        "noise": [phase.mechanism.noise_multiplier for phase in planned.phases],
        **{name: value for name, value in made.options.items() if name in (*LOCAL, *SLOW)},
        **{name: value for name, value in made.numbers.items() if name in ("learning_rate", "clip_norm")},
        "rows": options.rows_of(facts.vocab_size),
        "payload": 4 * federated_lm.payload(options, facts, task="text"),
        "signal_to_noise": signal,
        "before": before,
        "seconds": seconds,
        "threads": threads,
        **versions("torch", "transformers", "peft"),
    }
    return Figure(NAME, figure, score, "perplexity", None, detail)


def compare(name: str, of: dict[str, list[Figure]]) -> list[Figure]:
    """What the cases' figures come to, side by side."""
    found = []

    def add(figure: str, value: float, unit: str, **detail: object) -> None:
        found.append(Figure(NAME, f"{name}/{figure}", value, unit, None, detail))

    for case, figures in of.items():
        values = [figure.value for figure in figures]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        add(f"{case}/perplexity", statistics.mean(values), "", seeds=len(values), deviation=deviation)
        for what in ("payload", "signal_to_noise"):
            add(f"{case}/{what}", statistics.mean(float(str(f.detail[what])) for f in figures), "")
        full = [figure.value for figure in of.get("full", [])][: len(values)]
        if case != "full" and len(full) == len(values):
            ratios = [value / other for value, other in zip(values, full, strict=True)]
            mean, error = paired(ratios, [0.0] * len(ratios))
            add(f"{case}/over_full", mean, "ratio", standard_error=error)
        add("public/perplexity", float(str(figures[0].detail["before"])), "")
    return list({figure.figure: figure for figure in found}.values())


def heads(vocabularies: Sequence[int]) -> list[Figure]:
    """Bytes that are kept between the output layer's forward and backward pass, by the tensors that autograd saves
    beyond the table itself."""
    found = []
    for vocabulary in vocabularies:
        with tempfile.TemporaryDirectory() as folder:
            people.save_base(Path(folder), vocabulary, width=WIDTH, layers=1)
            model = build_model("text", Path(folder), (), seed=0).requires_grad_(True)
        ids = torch.arange(PLACES).view(8, -1) + 1
        likely = np.full(vocabulary, 1 / vocabulary)
        losses: dict[str, Loss] = {"softmax": target_losses, "nce": Nce(likely, 64, Keystream(bytes(32)))}
        whole = {name: _saved(model, ids, loss) for name, loss in losses.items()}
        body = _saved(model, ids, lambda model, run, where, targets: run().logits[..., :1].sum(-1))
        for name, total in whole.items():
            found.append(Figure(NAME, f"head/{name}/{vocabulary}", total - body, "bytes"))
    return found


def _saved(model: Any, ids: torch.Tensor, loss: Callable[..., torch.Tensor]) -> int:
    """Bytes of storages that autograd keeps, parameters apart."""
    seen: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = loss(model, lambda **more: model(input_ids=ids, **more), torch.ones_like(ids, dtype=torch.bool), ids)
    del kept
    return sum(seen.values())


def shakespeare(folder: Path) -> Data:
    """The roles' speeches; the last tenth of each role's, one at least of those with ten, is held out."""
    with (folder / "speeches.tsv").open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    roles: dict[str, list[str]] = {}
    for row in table:
        roles.setdefault(row["role"], []).append(row["text"])
    texts, owners, held_out = [], [], []
    for number, speeches in enumerate(roles.values()):
        last = len(speeches) // 10
        texts += speeches[: len(speeches) - last]
        owners += [number] * (len(speeches) - last)
        held_out += speeches[len(speeches) - last :]
    return Data("text", Rows({"text": texts}), Rows({"text": held_out}), max_length=64, owners=tuple(owners))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    made.add_argument("--shakespeare", type=Path, metavar="FOLDER", help="with speeches.tsv, in place of the made-up")
    made.add_argument("--writer", type=Path, metavar="FOLDER", help="a causal language model, for --shakespeare")
    made.add_argument("--epsilon", type=float, default=8.0, help="of a user (8)")
    made.add_argument("--seeds", type=int, default=3, help="jobs of each case (3)")
    made.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="which to run")
    made.add_argument("--threads", type=int, default=1, help="of each job's process (1)")
    for name, kind in (("steps", int), ("batch_size", int), ("learning_rate", float), ("clip_norm", float)):
        made.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"in place of {NUMBERS[name]:g}")
    options = made.parse_args(arguments)
    if (options.shakespeare is None) != (options.writer is None):
        made.error("--shakespeare and --writer belong together")
    numbers = NUMBERS | {name: value for name in NUMBERS if (value := getattr(options, name)) is not None}

    temporary = tempfile.TemporaryDirectory()
    if options.shakespeare:
        name, data, base = "shakespeare", shakespeare(options.shakespeare), options.writer
    else:
        name, base = "users", Path(temporary.name) / "base"
        users = 200 if options.quick else USERS
        found = people.population(VOCABULARY, users, public=500 if options.quick else 40_000)
        people.save_base(base, VOCABULARY, width=WIDTH, layers=LAYERS)
        pretrain(base, found.public, 2 if options.quick else 600)
        rows = Rows({"text": found.texts}), Rows({"text": found.held_out})
        data = Data("text", *rows, max_length=16, owners=tuple(found.owners))
    if options.quick:
        numbers |= {"steps": 2, "batch_size": 20}
        options.cases = [case for case in options.cases if case in ("full", "rows-lora-nce")]
    known = {figure.figure: figure for figure in held(options.json) if "seed" in figure.detail}
    of: dict[str, list[Figure]] = {}
    for seed in range(1 if options.quick else options.seeds):
        for case in options.cases:
            figure = f"{name}/{case}/seed {seed}"
            if figure not in known:
                epsilon, own = (ENDLESS, {"clip_norm": 1e3}) if case == "inf" else (options.epsilon, {})
                delta = min(1e-5, 1 / (10 * data.units))
                asked = Job("federated-lm", epsilon, CASES[case] | LOCAL, numbers | own, delta, seed, base)
                known[figure] = one(figure, case, asked, data, options.threads)
                sys.stderr.write(f"{figure} {known[figure].value:.4f}\n")
                save(list(known.values()), options.json)
            of.setdefault(case, []).append(known[figure])
    of_heads = [] if options.shakespeare else heads(VOCABULARIES[:2] if options.quick else VOCABULARIES)
    compared = [replace(figure) for figure in compare(name, of)]
    report([*known.values(), *compared, *of_heads], options.json)


if __name__ == "__main__":
    main()
