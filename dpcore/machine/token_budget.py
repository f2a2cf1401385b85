"""How many padded tokens a micro-batch should have on this machine, found on public records before the first step.

Neither the budget nor what it rests on depends on a private row: stand-in records, the plan and the machine. It only
decides how a draw is cut, and goes into nothing that is released.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

CPU_TOKENS, CPU_TOKENS_WIDE = 2048, 1024
"""On a processor, where more gained nothing; the second where wide weights train: their inputs and output gradients are
kept until the norms are known, so half as many cost no more memory than training without privacy, for 2 % of the time.
"""


def cpu_tokens(*, thin: bool) -> int:
    """Padded tokens on a processor with memory enough; thin: whether no trainable parameter is a wide matrix."""
    return CPU_TOKENS if thin else CPU_TOKENS_WIDE


CPU_BUFFER, CUDA_BUFFER_SHARE = 64 * 2**20, 1 / 16
"""Bytes for per-example gradients of a micro-batch; on a GPU a share of its memory."""

CPU_SHARE, CUDA_SHARE = 0.25, 0.8
"""Of the free memory, what a micro-batch may take. On a processor only what is kept for the backward pass is counted,
and memory that is overdrawn ends the process; on a GPU the peak is measured, and running out can be answered."""

GAIN = 1.05
"""Doubling the micro-batch must bring this much more tokens a second to be worth its memory."""


def find(run: Callable[[int], None], *, length: int, most: int, device: torch.device, tokens: int = CPU_TOKENS) -> int:
    """Padded tokens for a micro-batch. run(count): compute on that many public records of `length` tokens.

    most: records that the buffers have room for. tokens: at most these, on a processor. Raises what `run` raises where
    not even the first trial fits.
    """
    if most == 1:
        return length
    if device.type != "cuda":
        each = max(1, kept_bytes(lambda: run(2)) - kept_bytes(lambda: run(1)))
        return min(tokens, max(1, int(CPU_SHARE * free_bytes() / each)) * length)
    start = max(1, min(most, CPU_TOKENS // length))
    return length * grow(lambda count: _seconds(run, count, device), start=start, most=most, fits=_Fits(device))


def grow(seconds: Callable[[int], float], *, start: int, most: int, fits: Callable[[], bool]) -> int:
    """Double the records of a micro-batch up to `most`, until memory or the gain in records a second ends.

    seconds(count): how long a micro-batch takes. fits(): after one was tried, whether twice as much would fit.
    """
    count, rate = start, start / seconds(start)
    while 2 * count <= most and fits():
        now = 2 * count / seconds(2 * count)
        if now < GAIN * rate:
            break
        count, rate = 2 * count, now
    return count


def buffer_bytes(device: torch.device) -> int:
    """Bytes for the per-example gradients of a micro-batch."""
    if device.type != "cuda":
        return CPU_BUFFER
    return int(CUDA_BUFFER_SHARE * torch.cuda.mem_get_info(device)[1])


def kept_bytes(run: Callable[[], None]) -> int:
    """What a forward pass keeps for its backward pass: bytes of distinct memory, weights included."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(kept.values())


def device_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Memory in all: of the GPU; of the machine, or of this process's control group where that allows less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return min([_meminfo(root, "MemTotal"), *(most for _, most, _ in _groups(root))])


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may still take: of the machine, or of its control group where that allows less."""
    free = [_meminfo(root, "MemAvailable")]
    for folder, most, used in _groups(root):
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))  # given back on demand
        free.append(most - int((folder / used).read_text()) + cached)
    return max(0, min(free))


def _meminfo(root: Path, name: str) -> int:
    lines = (root / "proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _groups(root: Path) -> list[tuple[Path, int, str]]:
    """Control groups with a limit: the folder, the limit in bytes, and the file that says what is used."""
    group = root / "sys/fs/cgroup"
    found = []
    for folder, limit, used in (
        (group, "memory.max", "memory.current"),
        (group / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        if (folder / limit).is_file() and (most := (folder / limit).read_text().strip()) != "max":
            found.append((folder, int(most), used))
    return found


class _Fits:
    """Whether twice the last peak of a GPU's memory stays within what is free."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)

    def __call__(self) -> bool:
        peak = torch.cuda.max_memory_allocated(self._device) - self._before
        unused = torch.cuda.memory_reserved(self._device) - self._before
        free = torch.cuda.mem_get_info(self._device)[0] + unused
        return 2 * peak <= CUDA_SHARE * free


def _seconds(run: Callable[[int], None], count: int, device: torch.device) -> float:
    """Of one micro-batch, after one that warms up."""
    run(count)
    torch.cuda.synchronize(device)
    since = time.perf_counter()
    run(count)
    torch.cuda.synchronize(device)
    return time.perf_counter() - since
