"""A process for each contender, asked in turn: hooks and memory stay apart, times are taken side by side."""

import ctypes
import gc
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch

Commands = Mapping[str, Callable[..., Any]]
"""What a contender can be asked for, by name."""

N = TypeVar("N")
T = TypeVar("T")

_PRELOADED = ["torch", "transformers", "peft", "opacus", "dpcore.run", "dpcore.methods.lora"]


class Refused(Exception):
    """A contender cannot do what is asked; the message is its reason."""


class Child:
    """A process that made a contender and waits for questions."""

    def __init__(self, build: Callable[..., Commands], *arguments: Any, threads: int) -> None:
        """build(*arguments) runs in the process, which uses that many threads. Both must pickle."""
        # Children are forked from a process that has imported everything and run nothing.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments, threads), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> None:
        """Wait until the contender is made. Raises Refused when it cannot be."""
        self._answer()

    def ask(self, command: str, *arguments: Any) -> Any:
        """What the command returns. Raises Refused when it raises, or when the process died."""
        self._pipe.send((command, arguments))
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise Refused(f"its process ended with {self._process.exitcode}, for want of memory maybe") from error
        if kind == "refused":
            raise Refused(value)
        return value


def _die_with_parent() -> None:
    """A benchmark that is killed leaves nothing computing: its server of forks lives as long as this process does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _serve(pipe: Connection, build: Callable[..., Commands], arguments: Sequence[Any], threads: int) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # the baselines have many, and none is about their speed
    commands: Commands = {}
    try:
        while True:
            try:
                name, given = ("", ()) if not commands else pipe.recv()
                if name:
                    pipe.send(("done", commands[name](*given)))
                else:
                    commands = build(*arguments)
                    pipe.send(("done", None))
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:  # noqa: BLE001  whatever a library refuses with is its reason
                pipe.send(("refused", f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"))
                if not commands:
                    return
    except (EOFError, BrokenPipeError):
        return


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Timed:
    """Seconds spent in a function of an object, or of a module, since they were last asked for."""

    def __init__(self, owner: object, name: str, device: torch.device) -> None:
        self._seconds = 0.0
        function = getattr(owner, name)

        def timed(*arguments: Any, **more: Any) -> Any:
            began = clock(device)
            result = function(*arguments, **more)
            self._seconds += clock(device) - began
            return result

        setattr(owner, name, timed)

    def taken(self) -> float:
        """The seconds; the next ones begin at zero."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def interleaved(
    turns: Mapping[N, Callable[[], T]], rounds: int, every: Mapping[N, int] | None = None
) -> dict[N, dict[int, T]]:
    """What each contender's turns gave, by round, in an order that turns. every: some take part in every so manyth."""
    taken: dict[N, dict[int, T]] = {name: {} for name in turns}
    names = list(turns)
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            if number % (every or {}).get(name, 1) == 0:
                taken[name][number] = turns[name]()
    return taken


def resident(device: torch.device) -> int:
    """Bytes of this process in memory now, what the allocator only keeps for later left out where it can be told."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def peak(run: Callable[[], object], device: torch.device) -> int:
    """Bytes by which this process grows at most while it runs."""
    before = resident(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident now
    run()
    return _status("VmHWM") - before


def available(device: torch.device) -> int:
    """Bytes that a process can still have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
