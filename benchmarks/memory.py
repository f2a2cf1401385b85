"""How much memory does each method need for a micro-batch of private gradients, by depth and length?

{bert,gpt2}/d{6,12,24}/t{128,512}/{full,lora,lora-fa,bitfit,side,reversible,zo}/bytes
                                   what autograd saves for the backward pass (storages, each once, weights left out;
                                   not what that pass computes again and lets go, which the peak has) and the per-unit
                                   gradients that it leaves,
                                   found on 2 records and scaled to the batch; the detail has both, and the peak of
                                   resident memory (on a GPU: allocated) over the level before, on the whole batch
.../lora-default/bytes             LoRA where the service puts it by default: in a classifier's upper half
.../side_below_lora                bytes of lora over bytes of side; its detail has the peaks' ratio
{bert,gpt2}/t{128,512}/{side,reversible}/slope   what a layer more takes over what it takes lora, from the least
                                   depth to the greatest

Random weights, float32, width 384 (see --width), vocabulary 30,522 (bert) or 50,257 (gpt2). LoRA is r 8 on query and
value of all layers: the usual DP-LoRA. Losses are the service's own: behind a language model's frozen head, in
pieces. zo keeps a number for each record; its peak is of forward passes. A case that does not fit into what memory is
free is named in a note.
"""

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor

from benchmarks.common import Figure, Findings, parser, versions
from benchmarks.training.models import (
    GPT2_NARROW,
    MINILM,
    TINY,
    Family,
    Size,
    attach,
    make_batch,
    make_model,
    service_losses,
)
from benchmarks.training.processes import Child, Commands, Refused, available, peak
from benchmarks.training.steps import empty_sum, make_phase
from dpcore.engine.per_example import PerExample

NAME = "memory"
METHODS = ("full", "lora", "lora-default", "lora-fa", "bitfit", "side", "reversible", "zo")
FEW = 2
ROOM = 1.5
"""A micro-batch may need this many times the bytes that it keeps: what an operation works with comes on top."""


def commands(family: Family, size: Size, method: str, examples: int, length: int, device_name: str) -> Commands:
    """held(): bytes saved for the backward pass, and of per-unit gradients. peak(): of a clipped micro-batch."""
    device = torch.device(device_name)
    everywhere = method != "lora-default"
    model = make_model(family, size, length)
    attached = "lora" if method in ("lora-default", "zo") else method
    model = attach(model, family, attached, everywhere=everywhere).to(device)
    engine = PerExample(model)
    phase = make_phase(examples=examples)

    def held() -> tuple[int, int]:
        batch = make_batch(family, size, FEW, length, device)
        engine.release()
        before = set(_storages())
        saved: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in before:
                saved[storage.data_ptr()] = storage
            return tensor.detach()

        def losses() -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                return service_losses(model, family, batch)

        gradients = engine.gradients(losses, FEW)
        left = {at: size for at, size in _storages().items() if at not in before and at not in saved}
        del gradients
        kept = sum(storage.nbytes() for storage in saved.values())
        return kept * examples // FEW, sum(left.values()) * examples // FEW

    def highest() -> int:
        batch = make_batch(family, size, examples, length, device)
        engine.release()

        def run() -> None:
            gradients = engine.gradients(lambda: service_losses(model, family, batch), examples)
            empty_sum(engine, phase).add(gradients)

        needed = ROOM * sum(held())
        if needed > available(device):
            raise Refused(f"needs about {needed / 2**30:.0f} GiB, {available(device) / 2**30:.0f} are free")
        engine.release()
        return peak(run, device)

    def forward() -> None:
        with torch.no_grad():
            service_losses(model, family, make_batch(family, size, examples, length, device))

    if method == "zo":
        return {"held": lambda: (0, examples * torch.float64.itemsize), "peak": lambda: peak(forward, device)}
    return {"held": held, "peak": highest}


def _storages() -> dict[int, int]:
    """Bytes of all tensors that live, by address: each storage once."""
    gc.collect()
    live = [o.untyped_storage() for o in gc.get_objects() if isinstance(o, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in live}


def measure(
    case: str, family: Family, size: Size, methods: Sequence[str], examples: int, length: int, device: str, threads: int
) -> tuple[list[Figure], list[str]]:
    """The figures of one model at one length, and notes."""
    kept: dict[str, int] = {}
    peaks: dict[str, int] = {}
    figures, notes = [], []
    for method in methods:
        if method == "lora-default" and family == "gpt2":
            continue  # the service adapts all layers of a language model
        child = Child(commands, family, size, method, examples, length, device, threads=threads)
        detail: dict[str, object] = {"batch": f"{examples} x {length}", "size": str(size), "device": device}
        try:
            child.ready()
            saved, units = child.ask("held")
            kept[method] = saved + units
            detail |= {"saved_mib": saved >> 20, "per_unit_mib": units >> 20}
            peaks[method] = child.ask("peak")
            detail |= {"peak_mib": peaks[method] >> 20}
        except Refused as reason:
            notes.append(f"{case}/{method}: {reason}")
        finally:
            child.stop()
        if method in kept:
            figures.append(Figure(NAME, f"{case}/{method}/bytes", kept[method], "bytes", None, detail))
    if "side" in kept and "lora" in kept:
        both = "side" in peaks and "lora" in peaks
        more: dict[str, object] = {"by_peak": round(peaks["lora"] / peaks["side"], 2)} if both else {}
        figures.append(Figure(NAME, f"{case}/side_below_lora", kept["lora"] / kept["side"], "times", None, more))
    return figures, notes


def slopes(figures: Sequence[Figure]) -> list[Figure]:
    """Of methods whose memory should not grow with depth, where there are two depths of the same model."""
    bytes_of = {tuple(f.figure.split("/")[:4]): f.value for f in figures if f.figure.endswith("/bytes")}
    found = []
    for family, length in dict.fromkeys((family, length) for family, _, length, _ in bytes_of):
        depths = sorted({int(d[1:]) for f, d, t, _ in bytes_of if (f, t) == (family, length)})
        least, greatest = f"d{depths[0]}", f"d{depths[-1]}"

        def grown(
            method: str, of: tuple[str, str] = (family, length), ends: tuple[str, str] = (least, greatest)
        ) -> Any:
            low, high = (bytes_of.get((of[0], depth, of[1], method)) for depth in ends)
            return None if low is None or high is None else high - low

        for method in ("side", "reversible"):
            if grown("lora") and grown(method) is not None:
                value = grown(method) / grown("lora")
                found.append(
                    Figure(NAME, f"{family}/{length}/{method}/slope", value, "ratio", None, {"layers": depths})
                )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--models", nargs="+", default=["bert", "gpt2"], choices=("bert", "gpt2"), help="which to run")
    made.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="which to run")
    made.add_argument("--depths", nargs="+", type=int, default=[6, 12, 24], help="layers (default 6 12 24)")
    made.add_argument("--lengths", nargs="+", type=int, default=[128, 512], help="tokens (default 128 512)")
    made.add_argument("--batch", type=int, default=16, help="records (default %(default)s)")
    made.add_argument("--width", type=int, default=MINILM.width, help="a multiple of 64 (default %(default)s)")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default %(default)s")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = made.parse_args(arguments)

    findings = Findings(options.json, versions("torch", "transformers"))
    depths, lengths = (options.depths[:1], options.lengths[:1]) if options.quick else (options.depths, options.lengths)
    for family, depth, length in product(options.models, depths, lengths):
        size = MINILM if family == "bert" else GPT2_NARROW
        width = options.width
        size = replace(
            size, layers=depth, width=width, inner=4 * width, heads=width // (64 if family == "gpt2" else 32)
        )
        if options.quick:
            size = replace(TINY, layers=2)
        case = f"{family}/d{depth}/t{length}"
        batch = 4 if options.quick else options.batch
        findings.add(*measure(case, family, size, options.methods, batch, length, options.device, options.threads))
    findings.add(slopes(findings.figures))
    findings.report()


if __name__ == "__main__":
    main()
