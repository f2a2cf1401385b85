"""Poisson sampling of units over a whole file, and which records are whose."""

import math

import numpy as np

from dpcore.mechanism.keystream import Keystream


class Owners:
    """The records of each user. `owners`: int64 [n], the user of each record, numbered from 0."""

    def __init__(self, owners: np.ndarray) -> None:
        """Raises ValueError for a negative number."""
        if len(owners) and owners.min() < 0:
            raise ValueError("users are numbered from 0")
        self._owners = owners
        self._order = np.argsort(owners, kind="stable")
        self._ends = np.cumsum(np.bincount(owners))

    def __len__(self) -> int:
        """How many users there are."""
        return len(self._ends)

    def records(self, user: int) -> np.ndarray:
        """Indices of all records of a user, ascending: int64 [k]."""
        return self._order[self._ends[user - 1] if user else 0 : self._ends[user]]

    def of(self, records: np.ndarray) -> np.ndarray:
        """The users that these records belong to: int64 [k]."""
        users: np.ndarray = self._owners[records]
        return users


def first_within(records: np.ndarray, lengths: np.ndarray, most: int) -> np.ndarray:
    """The first of a user's records that have room in a bound on their lengths together: int64 [k]. By the user's own
    records alone; lengths: of all records."""
    return records[np.cumsum(lengths[records]) <= most]


def poisson(stream: Keystream, population: int, rate: float) -> np.ndarray:
    """Indices of the units in one draw, ascending: int64 [k], k from 0 to `population`.

    Guarantee: every unit is in the draw independently, with probability floor(rate * 2^64) / 2^64, which is at most
    `rate`. Uniform integers are compared, because a 24- or 53-bit uniform float would shift a small rate.
    Rate 1 includes every unit. Raises ValueError for a rate outside (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"sample rate {rate} is outside (0, 1]")
    if rate == 1:
        return np.arange(population)
    # Scaling a double by 2^64 is exact; the floor is what is left to lose.
    threshold = np.uint64(math.floor(rate * 2.0**64))
    return np.flatnonzero(stream.integers(population) < threshold)
