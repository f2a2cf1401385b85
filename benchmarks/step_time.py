"""What does a private training step cost, in time and memory, beside the same step without privacy?

{bert-64,bert-256,gpt2-64,gpt2-256,vit-224,vit-448}/{full,lora,bitfit}/{ours,opacus-hooks,opacus-ghost,fastdp,nonprivate-same-loss}/...
    time_ratio                    a step's time over the non-private step's, same method
    time_ratio_noise_amortised    the same with the noise of one draw spread over the 32 (64-token records) or 64
                                  micro-batches of the default batch of 1,024 records, as the service draws it;
                                  time_ratio has the noise of a whole draw in every step, the worst case
    memory_ratio                  peak memory above the level before the step, over the non-private step's
.../bitfit_over_opacus_full/{time,memory}     how many times faster and leaner private bitfit is than Opacus' full
.../bitfit_recompute_over_opacus_full/...     the same of bitfit whose layers keep their inputs only (ours-recompute)
.../bitfit_over_nonprivate_full/time          and than full fine-tuning without privacy

A step: forward, backward, clip, noise, AdamW; float32; 32 records of 64 tokens, 16 of 256, or 1 of 4,096, without
padding. bert is a classifier of MiniLM's size, gpt2 a causal language model (see --gpt2), vit a vision transformer of
12 layers of 384 on 8 pictures of 224 x 224 pixels, or 2 of 448 x 448; all with random weights. LoRA is r 8 on query
and value of all layers. Each contender has a process and the same number of threads; rounds visit them in an order
that turns, and every ratio is taken within a round. A contender that takes twice as long as the non-private step runs
in every third round. Memory is resident memory (on a GPU: allocated), weights and optimiser left out; the detail has
those too. A library that cannot train a case is named in a note with its reason.

Ours computes a language model's loss as the service does, behind a frozen head in pieces; the others as is usual, from
all logits. nonprivate-same-loss is training without privacy on our loss: how much of a ratio the loss is.

fastDP is on no registry that pip reads: check out github.com/awslabs/fast-differential-privacy and give its folder.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks.common import Figure, Findings, median, parser, spread, versions
from benchmarks.training.models import GPT2_NARROW, GPT2_SMALL, MINILM, TINY, VIT, Family
from benchmarks.training.processes import Child, Refused, interleaved
from benchmarks.training.steps import FASTDP, GHOST, HOOKS, NONPRIVATE, OURS, RECOMPUTE, SAME_LOSS, Setting, commands

NAME = "step_time"
METHODS = ("full", "lora", "bitfit")
EXAMPLES = {64: 32, 256: 16, 4096: 1}
PICTURES = {224: 8, 448: 2}
"""By pixels each way."""
LOGICAL = 1024
GPT2 = {"small": GPT2_SMALL, "narrow": GPT2_NARROW}
TURN_SECONDS = 0.3
"""A turn has as many steps as fit, at least one."""

Name = tuple[str, str]
"""Method and contender."""


@contextmanager
def started(setting: Setting, names: Sequence[Name], threads: int) -> Iterator[tuple[dict[Name, Child], list[str]]]:
    """A process for each contender that can take a step, warmed up, and why the others cannot."""
    children = {name: Child(commands, setting, *name, threads=threads) for name in names}
    refusals = []
    for name, child in list(children.items()):
        try:
            child.ready()
            child.ask("time", 2)
        except Refused as reason:
            refusals.append(f"{'/'.join(name)}: did not run: {reason}")
            children.pop(name).stop()
    try:
        yield children, refusals
    finally:
        for child in children.values():
            child.stop()


def measure(
    case: str, setting: Setting, method: str, contenders: Sequence[str], *, rounds: int, threads: int
) -> tuple[list[Figure], list[str]]:
    """The figures of one method, and notes."""
    base = (method, NONPRIVATE)
    names = [base, *((method, contender) for contender in contenders)]
    across = [("full", NONPRIVATE), ("full", HOOKS)] if method == "bitfit" else []
    with started(setting, [*names, *across], threads) as (children, refusals):
        notes = [f"{case}/{refusal}" for refusal in refusals]
        if base not in children:
            return [], notes
        memory = {name: _memory(child) for name, child in children.items()}
        trainable = {name: child.ask("trainable") for name, child in children.items()}
        seconds = _rounds(children, base, rounds)
    figures = []
    for name in names[1:]:
        if name not in children:
            continue
        both = [(seconds[name][i], seconds[base][i]) for i in seconds[name]]
        ratios = [ours[0] / its[0] for ours, its in both]
        share = median([noise / whole for (whole, noise), _ in both])
        draws = setting.examples / LOGICAL
        amortised = [(whole - noise * (1 - draws)) / its[0] for (whole, noise), its in both]
        peak, state = memory[name]
        detail: dict[str, object] = {
            "step_ms": round(1e3 * median([ours[0] for ours, _ in both]), 1),
            "nonprivate_ms": round(1e3 * median([its[0] for _, its in both]), 1),
            "rounds": len(ratios),
            "threads": threads,
            "trainable": trainable[name],
            "batch": f"{setting.examples} x {setting.length}",
            "size": str(setting.size),
            "device": setting.device,
        }
        path = f"{case}/{'/'.join(name)}"
        figures.append(Figure(NAME, f"{path}/time_ratio", median(ratios), "ratio", spread(ratios), detail))
        if share:
            more = {**detail, "noise_share": round(share, 3), "micro_batches": round(1 / draws)}
            figures.append(
                Figure(NAME, f"{path}/time_ratio_noise_amortised", median(amortised), "ratio", spread(amortised), more)
            )
        of_all = (peak + state) / sum(memory[base])
        bytes_ = {"peak_mib": peak >> 20, "nonprivate_mib": memory[base][0] >> 20, "with_state": round(of_all, 3)}
        figures.append(Figure(NAME, f"{path}/memory_ratio", peak / memory[base][0], "ratio", None, detail | bytes_))
    if across:
        for contender, called in ((OURS, "bitfit"), (RECOMPUTE, "bitfit_recompute")):
            if (method, contender) in children:
                figures += _across(case, called, (method, contender), seconds, memory, trainable)
    return figures, notes


def _memory(child: Child) -> tuple[int, int]:
    """Bytes of a step, and of weights and optimiser: medians, for the allocator has moods."""
    steps, states = zip(*(child.ask("memory") for _ in range(3)), strict=True)
    return int(median(steps)), int(median(states))


def _rounds(children: Mapping[Name, Child], base: Name, rounds: int) -> dict[Name, dict[int, tuple[float, float]]]:
    """By contender and round: seconds of a step, and of its noise."""
    first = {name: child.ask("time", 1)[0] for name, child in children.items()}
    steps = {name: max(1, int(TURN_SECONDS / taken)) for name, taken in first.items()}
    every = {name: 3 if taken > 2 * first[base] and rounds >= 12 else 1 for name, taken in first.items()}

    def turn(name: Name) -> tuple[float, float]:
        whole, noise = children[name].ask("time", steps[name])
        return whole / steps[name], noise / steps[name]

    return interleaved({name: partial(turn, name) for name in children}, rounds, every)


def _across(
    case: str,
    called: str,
    ours: Name,
    seconds: Mapping[Name, Mapping[int, tuple[float, float]]],
    memory: Mapping[Name, tuple[int, int]],
    trainable: Mapping[Name, int],
) -> list[Figure]:
    """Private bitfit against full fine-tuning."""
    figures = []
    for other, name in ((HOOKS, "opacus"), (NONPRIVATE, "nonprivate")):
        full = ("full", other)
        if full not in seconds:
            continue
        gains = [whole / seconds[ours][i][0] for i, (whole, _) in seconds[full].items() if i in seconds[ours]]
        path = f"{case}/{called}_over_{name}_full"
        detail: dict[str, object] = {"rounds": len(gains), "trainable": trainable[ours]}
        figures.append(Figure(NAME, f"{path}/time", median(gains), "times", spread(gains), detail))
        if other == HOOKS:
            gain = memory[full][0] / memory[ours][0]
            figures.append(Figure(NAME, f"{path}/memory", gain, "times", None, detail))
    return figures


def _cases(
    families: Sequence[Family], lengths: Sequence[int], pixels: Sequence[int], *, quick: bool
) -> Iterator[tuple[Family, int]]:
    for family in families:
        chosen = pixels if family == "vit" else lengths
        yield from ((family, length) for length in (chosen[:1] if quick else chosen))


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument(
        "--models", nargs="+", default=["bert", "gpt2"], choices=("bert", "gpt2", "vit"), help="which to run"
    )
    made.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="which to run")
    made.add_argument("--lengths", nargs="+", type=int, default=[64, 256], choices=list(EXAMPLES), help="tokens")
    made.add_argument("--pixels", nargs="+", type=int, default=list(PICTURES), choices=list(PICTURES), help="of vit")
    made.add_argument("--contenders", nargs="+", default=[OURS, HOOKS, GHOST], choices=(OURS, RECOMPUTE, HOOKS, GHOST))
    made.add_argument("--fastdp", metavar="FOLDER", type=Path, help="a checkout of fastDP, to compare with it too")
    made.add_argument(
        "--gpt2",
        choices=GPT2,
        help="small: GPT-2's own size, 12 layers of 768, the default on a GPU; "
        "narrow: its vocabulary over 6 layers of 384, the default on a processor",
    )
    made.add_argument("--rounds", type=int, default=24, help="of all contenders (default %(default)s)")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each (default %(default)s)")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = made.parse_args(arguments)

    on_gpu = options.device != "cpu"
    gpt2 = GPT2[options.gpt2 or ("small" if on_gpu else "narrow")]
    contenders = [*options.contenders, *([FASTDP] if options.fastdp else [])]
    findings = Findings(options.json, versions("torch", "transformers", "opacus"))
    if "gpt2" in options.models and gpt2 is not GPT2_SMALL and not options.quick:
        note = f"gpt2 here is {gpt2}: at GPT-2's own size the gradients of 32 records, which Opacus' hooks keep, take "
        findings.add([], [f"{note}15 GiB. --gpt2 small runs what fits."])
    sizes = {"bert": MINILM, "gpt2": gpt2, "vit": VIT}
    for family, length in _cases(options.models, options.lengths, options.pixels, quick=options.quick):
        examples = PICTURES[length] if family == "vit" else EXAMPLES[length]
        setting = Setting(family, sizes[family], examples, length, options.device, options.fastdp)
        if options.quick:
            setting = replace(setting, size=TINY, examples=4)
        for method in options.methods:
            rounds = min(3, options.rounds) if options.quick else options.rounds
            case = f"{family}-{length}"
            pieces = [SAME_LOSS] if family == "gpt2" and method != "full" else []
            findings.add(
                *measure(case, setting, method, [*contenders, *pieces], rounds=rounds, threads=options.threads)
            )
    findings.report()


if __name__ == "__main__":
    main()
