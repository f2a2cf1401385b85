"""Quality as pictures: how good results are, how sure that is, and what it is to be held against.

Places are percent of the drawing, so that text and dots keep their size on every screen. An accuracy lies between 0 and
1; a perplexity has no end, and its scale is logarithmic. Figures of different files or metrics never share a picture.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from api.jobs.quality import Quality
from api.jobs.schemas import Job

_EDGE = 6.0
"""Percent of the drawing that stays free at each side."""
_WIDEST = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)
"""How far an axis of shares may go."""


@dataclass(frozen=True)
class Mark:
    """A value's place on an axis, and its standard error's two ends where it has one."""

    name: str
    value: float
    at: float
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Ladder:
    """One result and what it is held against, each on a line of its own over one axis."""

    metric: str
    marks: list[Mark]
    ticks: list[tuple[str, float]]


@dataclass(frozen=True)
class Dot:
    """A job in a field of share and quality."""

    number: int
    job: Job
    x: float
    y: Mark
    outside: bool
    """Only another order admits it: its share is no part that adds up."""


@dataclass(frozen=True)
class Field:
    """The jobs that one public file measured, or what the budget holds out: quality against share of the budget."""

    metric: str
    file: str | None
    """None: measured privately."""
    jobs: list[tuple[int, Job]]
    """All of them, the best first, with their numbers in the picture."""
    dots: list[Dot]
    lines: list[Mark]
    """What results are held against."""
    ticks: list[tuple[str, float]]
    """Of quality."""
    across: list[tuple[float, float]]
    """Shares and their places."""


class Axis:
    """Values as places between the edges, the smallest first."""

    def __init__(self, metric: str, values: Iterable[float]) -> None:
        self.log = metric != "accuracy"
        self.low, self.high = 0.0, 1.0
        if self.log:
            known = [value for value in values if value > 0]
            self.low, self.high = math.log(min(known) / 1.1), math.log(max(known) * 1.1)

    def place(self, value: float) -> float:
        along = math.log(value) if self.log and value > 0 else self.low if self.log else value
        part = min(1.0, max(0.0, (along - self.low) / (self.high - self.low)))
        return round(_EDGE + part * (100 - 2 * _EDGE), 2)

    def mark(self, name: str, value: float, error: float | None = None) -> Mark:
        ends = None if error is None else (self.place(value - error), self.place(value + error))
        return Mark(name, value, self.place(value), ends)

    @property
    def ticks(self) -> list[tuple[str, float]]:
        if not self.log:
            return [(f"{value:g}", self.place(value)) for value in (0, 0.25, 0.5, 0.75, 1)]
        low, high = math.exp(self.low), math.exp(self.high)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        round_ones = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
        inside = [value for value in round_ones if low <= value <= high]
        if len(inside) > 7:
            inside = [value for value in inside if math.log10(value).is_integer()]
        return [(f"{value:,g}", self.place(value)) for value in inside[:: 1 + len(inside) // 8]]


def ladder(found: Quality | None) -> Ladder | None:
    """None for a job without figures."""
    if found is None:
        return None
    error = found.standard_error or 0.0
    named = [("This job", found.value, found.standard_error), ("Untrained", found.untrained, None)]
    if found.metric == "accuracy":
        named.append(("Most frequent label alone", found.baseline, None))
    known = [(name, value, its) for name, value, its in named if value is not None]
    axis = Axis(found.metric, [value for _, value, _ in known] + [found.value - error, found.value + error])
    return Ladder(found.metric, [axis.mark(name, value, its) for name, value, its in known], axis.ticks)


def fields(jobs: Sequence[Job]) -> list[Field]:
    """One picture for each public file that measured some of the jobs, and one for private measurements."""
    measured = [(job, job.quality) for job in jobs if job.quality is not None]
    measured.sort(key=lambda one: (one[1].metric, one[1].file or ""))
    groups = groupby(measured, key=lambda one: (one[1].metric, one[1].file))
    return [_field(metric, file, list(found)) for (metric, file), found in groups]


def _field(metric: str, file: str | None, found: list[tuple[Job, Quality]]) -> Field:
    better = -1 if metric == "accuracy" else 1
    found = sorted(found, key=lambda one: better * one[1].value)
    values = [q.value for _, q in found] + [q.value + (q.standard_error or 0) for _, q in found]
    values += [q.value - (q.standard_error or 0) for _, q in found]
    held_against = sorted({("untrained", q.untrained) for _, q in found if q.untrained is not None})
    if metric == "accuracy":
        held_against += sorted({("most frequent label", q.baseline) for _, q in found if q.baseline is not None})
    axis = Axis(metric, [*values, *(value for _, value in held_against if value is not None)])
    shares = [share for job, _ in found if (share := share_of(job)) is not None]
    widest = next((edge for edge in _WIDEST if edge >= max(shares, default=0)), max(shares, default=1))
    across = [(widest * part / 4, round(_EDGE + part * (100 - 2 * _EDGE) / 4, 2)) for part in range(5)]
    numbered = list(enumerate(found, start=1))
    dots = [
        Dot(
            number,
            job,
            round(_EDGE + share / widest * (100 - 2 * _EDGE), 2),
            axis.mark("", quality.value, quality.standard_error),
            job.privacy.main_order is False,
        )
        for number, (job, quality) in numbered
        if (share := share_of(job)) is not None
    ]
    lines = [axis.mark(name, value) for name, value in held_against if value is not None]
    return Field(metric, file, [(number, job) for number, (job, _) in numbered], dots, lines, axis.ticks, across)


def share_of(job: Job) -> float | None:
    """What the job took of the budget; None where it is not known."""
    return job.privacy.share_used or job.privacy.share
