"""How long is an epoch over real texts, beside Opacus and beside training without privacy?

{sst2,e2e}/{full,lora,bitfit}/...
    speedup_over_opacus     Opacus' time over ours: its hooks (or --ghost) with Poisson draws of the same rate, cut by
                            its BatchMemoryManager to the same padded tokens at once
    time_over_nonprivate    our time over that of a usual loop: shuffled batches, each part of them padded to its
                            longest, as many records at once as fit when all have the largest length
    time_over_bucketed      the same loop with all that ours has but privacy: its batch sorted by length and cut by
                            tokens, a language model's loss behind its frozen head, in pieces

The detail has each one's share of padding, how many shapes its batches had, and the epoch in seconds. All have the same
batch in expectation (--batch), at most 2,048 padded tokens at once, one AdamW step a batch, float32 and the same
threads; all compute a language model's logits for targets alone. Ours is dpcore's loop as the worker runs
it, its noise and a checkpoint in every ten steps included.

An epoch of a real file takes hours with some of these. Instead of all of its steps each contender takes --rounds, in
turn and on random draws from the whole file (Opacus in every third round); times are per token of text, padding left
out, times the tokens of the file. sst2 trains a classifier of MiniLM's size, e2e a language model of 6 layers of 384;
both with random weights, and texts cut in MiniLM's WordPieces. Without files, lengths are made up: log-normal, median
10 and sigma 0.7 for sst2, 58 and 0.27 for e2e.

sst2: a table with columns sentence and label (GLUE's train.tsv); e2e: with columns mr and ref (the E2E NLG challenge).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.common import Figure, Findings, median, parser, spread, versions
from benchmarks.training import texts
from benchmarks.training.loops import BUCKETED, GHOST, HOOKS, OURS, PADDED, Setting, commands
from benchmarks.training.models import MINILM, TINY
from benchmarks.training.processes import Child, Refused, interleaved
from dpcore.tasks.records import Records

NAME = "epoch_time"
METHODS = ("full", "lora", "bitfit")
TEXTS = {"sst2": texts.SST2, "e2e": texts.E2E}
MADE_UP = 40_000
TOKENS = 2048
SLOW = 3
"""Opacus takes part in every so manyth round."""


def measure(
    case: str, setting: Setting, records: Records, method: str, opacus: str, *, rounds: int, threads: int
) -> tuple[list[Figure], list[str]]:
    """The figures of one method, and notes."""
    names = (OURS, PADDED, BUCKETED, opacus)
    children = {name: Child(commands, setting, records, method, name, threads=threads) for name in names}
    notes = []
    try:
        for name, child in list(children.items()):
            try:
                child.ready()
            except Refused as reason:
                notes.append(f"{case}/{method}/{name}: did not run: {reason}")
                children.pop(name).stop()
        turns = {name: partial(child.ask, "step") for name, child in children.items()}
        taken = interleaved(turns, rounds, {opacus: SLOW})
        seen = {name: child.ask("seen") for name, child in children.items()}
    except Refused as reason:
        return [], [*notes, f"{case}/{method}: broke off: {reason}"]
    finally:
        for child in children.values():
            child.stop()
    each = {
        name: {i: seconds / tokens for i, (seconds, tokens) in by_round.items()} for name, by_round in taken.items()
    }
    total = int(records.lengths.sum())
    detail: dict[str, object] = {
        "records": len(records),
        "batch": setting.batch,
        "tokens_at_once": setting.tokens,
        "size": str(setting.size),
        "threads": threads,
        "device": setting.device,
    }
    for name, (padding, shapes) in seen.items():
        detail[name] = f"{total * median(list(each[name].values())):.0f} s, {padding:.0%} padding, {shapes} shapes"
    figures = []
    for figure, above, below in (
        ("speedup_over_opacus", opacus, OURS),
        ("time_over_nonprivate", OURS, PADDED),
        ("time_over_bucketed", OURS, BUCKETED),
    ):
        if above in each and below in each:
            ratios = _ratios(each[above], each[below])
            unit = "times" if above == opacus else "ratio"
            more = {**detail, "rounds": len(ratios)}
            figures.append(Figure(NAME, f"{case}/{method}/{figure}", median(ratios), unit, spread(ratios), more))
    return figures, notes


def _ratios(above: Mapping[int, float], below: Mapping[int, float]) -> list[float]:
    """Of the rounds that both were in."""
    return [above[i] / below[i] for i in above if i in below]


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--sst2", metavar="TSV", type=Path, help="SST-2's train.tsv")
    made.add_argument("--e2e", metavar="TSV", type=Path, help="E2E NLG's train.tsv")
    made.add_argument("--texts", nargs="+", default=list(TEXTS), choices=list(TEXTS), help="which to run")
    made.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="which to run")
    made.add_argument("--batch", type=int, default=512, help="records expected in a step (default %(default)s)")
    made.add_argument("--rounds", type=int, default=2, help="steps of each contender (default %(default)s)")
    made.add_argument("--ghost", action="store_true", help="Opacus with ghost clipping in place of its hooks")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each (default %(default)s)")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = made.parse_args(arguments)

    findings = Findings(options.json, versions("torch", "transformers", "opacus"))
    for case in options.texts:
        text, file = TEXTS[case], getattr(options, case)
        if file is None:
            findings.add([], [f"{case}: lengths are made up; --{case} TSV takes the real ones"])
        made_up = 2000 if options.quick else MADE_UP
        records = texts.make_up(text, made_up) if file is None else texts.read(text, texts.make(text), file)
        size = replace(TINY, vocabulary=MINILM.vocabulary) if options.quick else MINILM
        batch = min(64, options.batch) if options.quick else options.batch
        setting = Setting(text, size, batch, TOKENS, options.device)
        for method in options.methods:
            opacus = GHOST if options.ghost else HOOKS
            findings.add(
                *measure(case, setting, records, method, opacus, rounds=options.rounds, threads=options.threads)
            )
    findings.report()


if __name__ == "__main__":
    main()
