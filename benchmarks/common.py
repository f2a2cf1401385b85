"""What every benchmark shares: figures, their table for people and their lines of JSON, and how to take times."""

import argparse
import json
import math
import os
import platform
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One number. spread: relative, (third quartile - first) / median over rounds; None where there is one round."""

    benchmark: str
    figure: str
    value: float
    unit: str
    spread: float | None = None
    detail: dict[str, object] = field(default_factory=dict)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a smaller run, in less than a minute")
    made.add_argument("--json", metavar="FILE", type=Path, help="also write one line of JSON per figure")
    return made


def report(figures: Sequence[Figure], json_file: Path | None, notes: Sequence[str] = ()) -> None:
    """Print the table; write the lines."""
    width = max(len(f.figure) for f in figures)
    for f in figures:
        spread = "" if f.spread is None else f"  spread {f.spread:6.1%}"
        detail = "  " + ", ".join(f"{k} {v}" for k, v in f.detail.items()) if f.detail else ""
        sys.stdout.write(f"{f.figure:{width}}  {f.value:12.4g} {f.unit:6}{spread}{detail}\n")
    for note in notes:
        sys.stdout.write(f"{note}\n")
    save(figures, json_file)


def save(figures: Sequence[Figure], json_file: Path | None) -> None:
    """Write the lines, where a file was named."""
    if json_file is not None:
        machine = {"processor": processor(), "cores": os.cpu_count()}
        lines = [json.dumps({**asdict(f), "detail": {**machine, **f.detail}}) + "\n" for f in figures]
        json_file.write_text("".join(lines))


def held(file: Path | None) -> list[Figure]:
    """What an earlier run left in its file of lines."""
    if file is None or not file.is_file():
        return []
    return [Figure(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


@dataclass
class Findings:
    """Figures and notes of a benchmark of many cases. `add` says them on stderr and saves all so far: some benchmarks
    take an hour, and may be cut off."""

    json_file: Path | None
    detail: Mapping[str, object]
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, figures: Sequence[Figure], notes: Sequence[str] = ()) -> None:
        """Take a case's figures, with the detail that all have, and its notes."""
        self.figures += [replace(f, detail=f.detail | dict(self.detail)) for f in figures]
        self.notes += notes
        lines = [*(f"{f.figure} {f.value:.4g}" for f in figures), *notes]
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        save(self.figures, self.json_file)

    def report(self) -> None:
        """Print the table."""
        report(self.figures, self.json_file, self.notes)


def median(values: Sequence[float]) -> float:
    """Middle of the values."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float | None:
    """Distance of the quartiles over the median."""
    if len(values) < 4:
        return None
    first, middle, third = statistics.quantiles(values, n=4)
    return (third - first) / middle


def paired(these: Sequence[float], those: Sequence[float]) -> tuple[float, float | None]:
    """Mean difference of pairs, and its standard error where there are two or more."""
    apart = [this - that for this, that in zip(these, those, strict=True)]
    error = statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else None
    return statistics.mean(apart), error


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor()


def versions(*names: str) -> dict[str, object]:
    """Installed versions of packages, for a figure's detail."""
    return {name: version(name) for name in names}
