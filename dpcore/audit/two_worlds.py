"""A bound on epsilon from many outputs in two neighbouring worlds (Nasr and others 2021, Adversary Instantiation,
section 4; intervals of Clopper and Pearson 1934).

An event that has at most probability p in one world and at least q in the other shows epsilon >= log((q - delta) / p).
It is chosen on the first half of the outputs, and held against the second half.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dpcore.audit.tails import lower, upper

_CUTS = 40
"""Thresholds that are tried, by quantiles."""
_TAILS = (0.002, 0.005)
_NEVER = 4
"""What never happened in a sample may happen so often in another, about."""


@dataclass(frozen=True)
class TellingEvent:
    """A number of the outputs is above a threshold, or below it; in the second world it should be more likely, or,
    where the worlds are swapped, in the first."""

    column: int
    threshold: float
    above: bool
    swapped: bool

    def count(self, outputs: np.ndarray) -> int:
        """How often it happened."""
        values = outputs[:, self.column]
        return int((values > self.threshold).sum() if self.above else (values < self.threshold).sum())


def epsilon(event: TellingEvent, first: np.ndarray, second: np.ndarray, delta: float, significance: float) -> float:
    """By this one event, with confidence 1 - significance; 0 says nothing. first, second: outputs of the two worlds,
    float64 [n, columns]."""
    rare, frequent = (second, first) if event.swapped else (first, second)
    most = upper(event.count(rare), len(rare), significance / 2)
    least = lower(event.count(frequent), len(frequent), significance / 2)
    return max(0.0, math.log((least - delta) / most)) if least > delta else 0.0


def bound(first: np.ndarray, second: np.ndarray, delta: float, significance: float) -> float:
    """By the event that does best on the first half of the outputs."""
    half = len(first) // 2, len(second) // 2
    chosen = max(
        _events(first[: half[0]], second[: half[1]]),
        key=lambda event: _promise(event, first[: half[0]], second[: half[1]], delta),
    )
    return epsilon(chosen, first[half[0] :], second[half[1] :], delta, significance)


def _promise(event: TellingEvent, first: np.ndarray, second: np.ndarray, delta: float) -> float:
    """What an event is chosen by: its bound, about, two deviations of its counts away from them."""
    rare, frequent = (second, first) if event.swapped else (first, second)
    seldom, often = event.count(rare), event.count(frequent)
    most = (seldom + 2 * math.sqrt(seldom) + _NEVER) / len(rare)
    least = (often - 2 * math.sqrt(often)) / len(frequent)
    return math.log((least - delta) / most) if least > delta else -math.inf


def _events(first: np.ndarray, second: np.ndarray) -> Iterator[TellingEvent]:
    cuts = np.array([*_TAILS, *np.linspace(0, 1, _CUTS)[1:-1], *(1 - np.array(_TAILS))])
    for column in range(first.shape[1]):
        for threshold in np.quantile(np.concatenate([first[:, column], second[:, column]]), cuts):
            for above in (True, False):
                yield from (TellingEvent(column, float(threshold), above, swapped) for swapped in (True, False))
