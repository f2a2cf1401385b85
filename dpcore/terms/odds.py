"""What a promise means in odds: of those whom an attacker rightly accuses of being in the data, how many are found at
most, when so many others are accused wrongly.

With `innocent` the share of people outside the data who are accused and `found` that of people inside, every privacy
profile delta(e) gives, at each e >= 0 and in both directions of the neighbouring relation,

  found <= exp(e) innocent + delta(e)   and   1 - innocent <= exp(e) (1 - found) + delta(e)

(Wasserman and Zhou 2010; Kairouz, Oh and Viswanath 2015). The least over e is a bound, and so is that over any grid.
"""

import math
from dataclasses import dataclass
from typing import Any

from dpcore.terms import accounting
from dpcore.terms.accounting import Filter, Parts

INNOCENT = (
    0.0,
    0.0001,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.07,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
)
"""Shares of people outside the data, accused wrongly, at which a curve is stated, beside all of them."""
LOSSES = tuple(i / 100 for i in range(3001))
"""Nats e at which a privacy profile is asked: a grid only makes the bound larger."""
DIGITS = 10**6
"""Shares are stated in steps of one part in so many, rounded up."""
_LARGEST = 700.0
"""Exponents stop here: what is beyond counts as certain."""


@dataclass(frozen=True)
class TradeOff:
    """A privacy profile on a grid: `deltas[i]` bounds delta at `losses[i]`, in nats."""

    losses: tuple[float, ...]
    deltas: tuple[float, ...]

    def found(self, innocent: float) -> float:
        """The largest share of people in the data whom anybody accuses who accuses this share of all others; rounded
        up."""
        bound = 1.0
        for e, delta in zip(self.losses, self.deltas, strict=True):
            bound = min(bound, math.exp(e) * innocent + delta, 1 - max(0.0, 1 - innocent - delta) * math.exp(-e))
        return _up(bound)

    def best_accuracy(self) -> float:
        """The largest share of right answers about people of whom half are in the data; rounded up. Adding the two
        bounds: accuracy <= (exp(e) + delta(e)) / (1 + exp(e)), written so that no e is too large."""
        sides = zip(self.losses, self.deltas, strict=True)
        return _up(min(1.0, min((1 + delta * math.exp(-e)) / (1 + math.exp(-e)) for e, delta in sides)))


def of_filter(epsilon: float, delta: float, filter: Filter) -> TradeOff:
    """Of everything that a budget with this limit may ever release, jobs chosen after seeing the results of others.

    The filter's proof bounds, for every e, delta(e) <= sum over orders of c(a) exp((a - 1) (cap(a) - e)) with
    log c(a) = -log a + (a - 1) log(1 - 1/a): the order at which a history fits is known only at its end, so that all
    count. With the caps of epsilon, delta and the weights w this is delta times the sum of w(a) exp((a - 1) (epsilon -
    e)), and delta itself at e = epsilon. Caps are rounded down, so that this is never too small.
    """
    sides = [(a - 1, math.log(delta) + math.log(w)) for a, w in zip(filter.orders, filter.weights, strict=True)]
    deltas = [
        min(1.0, sum(math.exp(min(_LARGEST, start + slope * (epsilon - e))) for slope, start in sides)) for e in LOSSES
    ]
    return TradeOff(LOSSES, tuple(deltas))


def of_pair(epsilon: float, delta: float) -> TradeOff:
    """Of a promise of which nothing but epsilon and delta is known."""
    return TradeOff((epsilon,), (delta,))


def of_job(job: Parts) -> TradeOff:
    """Of a job on its own, its plan fixed before: from its privacy loss distribution, rounded so that nothing comes
    out too small. Takes seconds (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022)."""
    return of_losses(accounting.losses(job))


def of_losses(accountant: Any) -> TradeOff:
    """accountant: of `dpcore.terms.accounting.losses`."""
    return TradeOff(LOSSES, tuple(min(1.0, max(0.0, float(delta))) for delta in accountant.get_delta(list(LOSSES))))


def curve(found: TradeOff) -> list[tuple[float, float]]:
    """Points of a trade-off curve, rising: the share of the innocent who are accused, and that of people in the data
    who are found at most."""
    return [(innocent, found.found(innocent)) for innocent in (*INNOCENT, 0.95, 1.0)]


def in_words(found_at_one_percent: float, what: str, unit: str) -> str:
    """One sentence for people. found_at_one_percent: a share; what: what the attacker has; unit: who is protected."""
    whom = "people" if unit == "user" else "records"
    people = math.ceil(round(found_at_one_percent * 1000, 9)) / 10  # of a hundred, up to a tenth
    which = "who is" if unit == "user" else "which are"
    if people >= 100:
        return (
            f"Of 100 {whom} in the data, whoever has {what} might find all, by this bound: where 1 of 100 {whom} "
            "outside the data may be accused wrongly, it excludes nothing."
        )
    return (
        f"Of 100 {whom} in the data, whoever has {what} and knows everything else but {which} in the data finds at "
        f"most {people:g}, if at most 1 of 100 {whom} outside the data may be accused wrongly; pure guessing finds 1."
    )


def _up(share: float) -> float:
    return min(1.0, math.ceil(round(share * DIGITS, 6)) / DIGITS)
