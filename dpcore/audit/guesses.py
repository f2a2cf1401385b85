"""What an attacker says of the canaries: of those with the highest scores that they were in, of those with the lowest
that they were not, and nothing of the others."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PARTS = (1.0, 0.5, 0.25, 0.125)
"""How many of the canaries something is said of: fixed beforehand, and each a bound of its own, which all hold
together."""
LEAST = 8
"""Guesses that can show anything."""


@dataclass(frozen=True)
class Scored:
    """values: float64 [m], high for canaries that seem to have been in; included: bool [m], the coins. Where several
    runs were made, each with canaries of its own, those of all."""

    values: np.ndarray
    included: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def accuracy(self) -> float:
        """The share of all canaries that is guessed right, by the middle of the scores."""
        return self.correct(len(self)) / max(1, len(self))

    def correct(self, guesses: int, *, only_in: bool = False) -> int:
        """How many of so many guesses are right, half of them that a canary was in. only_in: all of them."""
        order = np.argsort(self.values, kind="stable")
        high = guesses if only_in else guesses // 2
        right = self.included[order[len(order) - high :]].sum() + (~self.included[order[: guesses - high]]).sum()
        return int(right)

    def tried(self, *, only_in: bool = False) -> Iterator[tuple[int, int]]:
        """Each number of guesses, and how many of them are right."""
        numbers = {round(len(self) * part * (0.5 if only_in else 1)) for part in PARTS}
        for guesses in sorted(number for number in numbers if number >= LEAST):
            yield guesses, self.correct(guesses, only_in=only_in)


def together(parts: list[Scored]) -> Scored:
    """Those of several runs."""
    return Scored(np.concatenate([p.values for p in parts]), np.concatenate([p.included for p in parts]))
