"""What a mechanism costs and what fits: Renyi curves and the budget filter, in whole units of 1e-12 nat.

The ledger's database prices with its own function and has the last word; this module computes the same numbers
with dp-accounting for plans and estimates, rounded so that what it says fits does fit there.

Neighbouring relation: add or remove one unit. Mechanism: Poisson-subsampled Gaussian (Mironov, Talwar and Zhang 2019).
Filter: an order i is fixed by weights w_i before the first release (fully adaptive composition at a fixed Renyi order:
Feldman and Zrnic 2021; conversion: Canonne, Kamath and Steinke 2020, Prop. 12). Each budget has its own list of orders.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

FIRST_ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64)
"""Renyi orders of the budgets of the first revisions: integers, so that the curve has a closed form."""

BASE_ORDERS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128)
"""What every new budget has beside its main order: for jobs of other shapes than its reference job."""

MAIN_ORDERS = (*range(2, 65), *range(66, 129, 2), *range(132, 257, 4), *range(264, 513, 8))
"""What a budget's main order is chosen from: at most 3 % apart from 34 on, where noise hardly changes with it."""

UNITS_PER_NAT = 10**12
SATURATION = 2**53
"""Costs stop here; caps stay below, so a saturated order can never certify again."""

MAIN_WEIGHT = Fraction(7, 10)
MAX_NOISE_MULTIPLIER = 1000.0
MIN_NOISE_MULTIPLIER = 0.2

PLD_INTERVAL = 1e-4
"""Nats between two values of a discretised privacy loss, which is rounded so that epsilon never comes out too small."""

Curve = tuple[int, ...]


@dataclass(frozen=True)
class Filter:
    """The orders at which a budget is held, rising, and the share of delta of each: public, fixed at its opening."""

    orders: tuple[int, ...]
    weights: tuple[Fraction, ...]

    @property
    def nothing(self) -> Curve:
        """The cost of no step."""
        return (0,) * len(self.orders)

    @property
    def main(self) -> int:
        """The place of the main order: shares are parts of its cap, and add up."""
        return max(range(len(self.weights)), key=lambda place: self.weights[place])


class Part(NamedTuple):
    """So many steps at one rate, of a job whose noise is to be chosen. noise: of a step, relative to other parts'."""

    sample_rate: float
    steps: int
    noise: float = 1.0


Parts = tuple[Part, ...]


class DoesNotFit(ValueError):
    """No noise in the allowed range makes the job fit; `smallest` is the least epsilon or share that would."""

    def __init__(self, message: str, smallest: float | None = None) -> None:
        super().__init__(message)
        self.smallest = smallest


@lru_cache(maxsize=4096)
def curve(noise_multiplier: float, sample_rate: float, orders: tuple[int, ...]) -> Curve:
    """Cost of one step at each order, units of 1e-12 nat, rounded up; at most SATURATION."""
    # Here and below: it takes a second to import, and most commands price nothing.
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier))
    accountant = RdpAccountant(list(orders), NeighboringRelation.ADD_OR_REMOVE_ONE).compose(event)
    return tuple(_units_up(float(rho)) for rho in accountant.rdp)


def scaled(noise_multiplier: float, by: float) -> float:
    """So many times this noise, on the grid of 1e-6, rounded up; `by` is on the grid."""
    return math.ceil(Fraction(noise_multiplier) * round(by * 1e6)) / 1e6


def _units_up(nats: float) -> int:
    # The relative margin covers what the database's own evaluation may differ by (seen: 3e-10).
    units = nats * UNITS_PER_NAT * (1 + 1e-9)
    return SATURATION if not units < SATURATION else max(1, math.ceil(units))


def cost(step: Curve, steps: int) -> Curve:
    """Cost of `steps` steps, saturating per order."""
    return tuple(min(k * steps, SATURATION) for k in step)


def total(costs: Sequence[Curve]) -> Curve:
    """Sum of the costs of independent phases, saturating per order."""
    return tuple(min(sum(c), SATURATION) for c in zip(*costs, strict=True))


def _offset(order: int, delta: float, weight: Fraction | int) -> float:
    """cap - epsilon in nats: (log(delta w) - log c(a)) / (a - 1), log c(a) = -log a + (a-1) log(1-1/a)."""
    log_c = -math.log(order) + (order - 1) * math.log1p(-1 / order)
    return (math.log(delta) + math.log(weight) - log_c) / (order - 1)


def _cap(epsilon: float, offset: float) -> int:
    return min(math.floor((epsilon + offset) * UNITS_PER_NAT) - 2, SATURATION - 1)


def caps(epsilon: float, delta: float, filter: Filter) -> Curve:
    """Most that may be spent at each order, units of 1e-12 nat, rounded down."""
    return tuple(_cap(epsilon, _offset(a, delta, w)) for a, w in zip(filter.orders, filter.weights, strict=True))


def fits(cap: Sequence[int], used: Sequence[int], more: Sequence[int]) -> bool:
    """The admission rule: there is an order at which what is used and what is asked stay within the cap."""
    return any(u + m <= c for c, u, m in zip(cap, used, more, strict=True))


def epsilon_alone(spent: Curve, delta: float, filter: Filter) -> float:
    """Epsilon that this cost alone would take of an empty budget with this filter and this delta, never below 0."""
    usable = [
        k / UNITS_PER_NAT - _offset(a, delta, w)
        for k, a, w in zip(spent, filter.orders, filter.weights, strict=True)
        if k < SATURATION
    ]
    if not usable:
        return math.inf
    # Two units up: caps are rounded down by as much, so asking for exactly this epsilon fits.
    return max(0.0, min(usable) + 4 / UNITS_PER_NAT)


def losses(job: Parts) -> Any:
    """The privacy loss distribution of a job on its own, rounded so that nothing comes out too small, as a
    dp-accounting PLDAccountant. Takes up to seconds (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022)."""
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, PLD_INTERVAL)
    for part in job:
        if part.steps:
            accountant.compose(PoissonSampledDpEvent(part.sample_rate, GaussianDpEvent(part.noise)), part.steps)
    return accountant


def pld_epsilon(job: Parts, delta: float) -> float:
    """Epsilon of a job on its own by its privacy loss distribution: to be shown, never to be charged.

    Tighter than the filter's, and an upper bound too, but only for a job whose plan was fixed before any other result
    was seen: it does not add up over jobs. Takes as long as `losses`.
    """
    return epsilon_of_losses(losses(job), delta)


def epsilon_of_losses(accountant: Any, delta: float) -> float:
    """The same, of what `losses` found."""
    return max(0.0, float(accountant.get_epsilon(delta)))


def with_main(main: int, others: Sequence[int] = BASE_ORDERS) -> Filter:
    """0.7 on the main order, the rest shared equally among the others; the sum is one."""
    orders = tuple(sorted({*others, main}))
    rest = (1 - MAIN_WEIGHT) / (len(orders) - 1)
    return Filter(orders, tuple(MAIN_WEIGHT if a == main else rest for a in orders))


@lru_cache(maxsize=256)
def reference_filter(
    epsilon: float, delta: float, sample_rate: float, steps: int, noise_multiplier: float | None = None
) -> Filter:
    """The filter for a budget whose typical use is jobs of (sample_rate, steps), repeated until the budget is full.

    The main order is the one that, with its weight, asks for the least noise: of the job that fills the budget by
    itself, or, with a noise multiplier, the one that holds most of these jobs. Raises DoesNotFit with the smallest
    epsilon that works.
    """
    room = {a: _cap(epsilon, _offset(a, delta, MAIN_WEIGHT)) for a in MAIN_ORDERS}
    if noise_multiplier is None:
        # Few orders bound the noise from above; only what fits there can fit with less.
        job = (Part(sample_rate, steps),)
        coarse = _least_noise({a: room[a] for a in BASE_ORDERS}, job)
        found = _least_noise(room, job, at_most=MAX_NOISE_MULTIPLIER if coarse is None else coarse[0])
        if found is None:
            raise _too_small(epsilon, delta, sample_rate, steps)
        main = found[1]
    else:
        step = dict(zip(MAIN_ORDERS, curve(noise_multiplier, sample_rate, MAIN_ORDERS), strict=True))
        main = max(MAIN_ORDERS, key=lambda a: Fraction(room[a], step[a]) if step[a] < SATURATION else Fraction(-1))
    filter = with_main(main)
    quiet = cost(curve(MAX_NOISE_MULTIPLIER, sample_rate, filter.orders), steps)
    if not fits(caps(epsilon, delta, filter), filter.nothing, quiet):
        raise _too_small(epsilon, delta, sample_rate, steps)
    return filter


def _too_small(epsilon: float, delta: float, sample_rate: float, steps: int) -> DoesNotFit:
    """The least epsilon at which the quietest job, most weight on the best order, fits an empty budget."""
    quiet = cost(curve(MAX_NOISE_MULTIPLIER, sample_rate, MAIN_ORDERS), steps)
    least = min(k / UNITS_PER_NAT - _offset(a, delta, MAIN_WEIGHT) for a, k in zip(MAIN_ORDERS, quiet, strict=True))
    least = math.ceil(max(0.0, least + 4 / UNITS_PER_NAT) * 1000) / 1000
    return DoesNotFit(
        f"epsilon {epsilon:g} is too small at delta {delta:g}: the smallest that works is {least:g}", least
    )


@lru_cache(maxsize=4096)
def calibrate(epsilon: float, delta: float, filter: Filter, job: Parts, beside: Curve | None = None) -> float:
    """What the noise of all parts together is multiplied by at least (6 decimals, rounded up), so that the job takes at
    most `epsilon` of an empty budget with this filter and this delta, by the ledger's own rule. Of one part with noise
    1 it is the noise multiplier. beside: what the job takes besides, at a noise of its own. Raises DoesNotFit."""
    more = beside or filter.nothing
    left = [c - m for c, m in zip(caps(epsilon, delta, filter), more, strict=True)]
    found = _least_noise(_room(left, filter), job)
    if found is None:
        quietest = total([_quietest(filter.orders, job), more])
        least = math.ceil(epsilon_alone(quietest, delta, filter) * 1000) / 1000
        shape = " and ".join(f"{part.steps} steps at sample rate {part.sample_rate:g}" for part in job)
        raise DoesNotFit(
            f"{shape} cannot be had for epsilon {epsilon:g} at delta {delta:g}; "
            f"the smallest epsilon that works is {least:g}",
            least,
        )
    return found[0]


def calibrate_share(share: float, cap: Sequence[int], filter: Filter, job: Parts) -> float:
    """As `calibrate`, so that the job takes at most this share of the cap at the main order. Raises DoesNotFit with the
    smallest share that works."""
    place = filter.main
    found = _least_noise({filter.orders[place]: _of_share(share, cap[place])}, job)
    if found is None:
        least = share_up(_quietest(filter.orders, job), cap, filter)
        raise DoesNotFit(
            f"this job cannot be had for a share of {share:g}; the smallest that works is {least:g}", least
        )
    return found[0]


def _of_share(share: float, cap: int) -> int:
    """Units of 1e-12 nat, rounded down; a share is the decimal number that it is written as."""
    return math.floor(Fraction(str(share)) * cap)


SHARE_DIGITS = 10**6
"""Shares are shown in steps of one part in so many."""


def share_up(amount: Sequence[int], cap: Sequence[int], filter: Filter) -> float:
    """What part of the cap at the main order this amount is, rounded up; infinite where there is no cap."""
    place = filter.main
    if cap[place] <= 0:
        return math.inf
    return math.ceil(Fraction(amount[place], cap[place]) * SHARE_DIGITS) / SHARE_DIGITS


def share_left(cap: Sequence[int], used: Sequence[int], filter: Filter) -> float:
    """What part of the cap at the main order is left beside what is used, rounded down, never below 0: a job of at most
    this share fits."""
    place = filter.main
    left = cap[place] - used[place]
    return math.floor(Fraction(left, cap[place]) * SHARE_DIGITS) / SHARE_DIGITS if left > 0 else 0.0


def share_caps(share: Fraction, cap: Sequence[int], main: int) -> Curve:
    """What a part of a budget holds: so much of the cap at the main order, and at no other order anything."""
    return tuple(math.floor(share * c) if place == main else -1 for place, c in enumerate(cap))


def epsilon_at_share(share: float, cap: Sequence[int], delta: float, filter: Filter) -> float:
    """About the epsilon of a job of this share: what the main order says of it alone."""
    place = filter.main
    nats = _of_share(share, max(0, cap[place])) / UNITS_PER_NAT
    return max(0.0, nats - _offset(filter.orders[place], delta, filter.weights[place]))


def cost_of(job: Parts, by: float, orders: tuple[int, ...]) -> Curve:
    """What a job costs whose noise is multiplied by `by`, saturating per order."""
    return total([cost(curve(scaled(part.noise, by), part.sample_rate, orders), part.steps) for part in job])


def _quietest(orders: tuple[int, ...], job: Parts) -> Curve:
    """What the job costs with the most noise that there is."""
    return cost_of(job, _most(job, MAX_NOISE_MULTIPLIER) / 1e6, orders)


def _most(job: Parts, at_most: float) -> int:
    """What the noise of all parts may be multiplied by, so that none has more than `at_most`: units of 1e-6."""
    return min(math.floor(round(at_most * 1e6) / Fraction(part.noise)) for part in job)


def _room(left: Sequence[int], filter: Filter) -> dict[int, int]:
    return dict(zip(filter.orders, left, strict=True))


def _least_noise(
    room: Mapping[int, int], job: Parts, *, at_most: float = MAX_NOISE_MULTIPLIER
) -> tuple[float, int] | None:
    """The least that the noise of all parts can be multiplied by, on the grid of 1e-6, so that the job fits what
    is left at some order, and an order at which it does; None when `at_most` is not enough.

    Cost falls as noise grows, so that an order which does not fit cannot fit with less: only those that fitted last are
    asked again.
    """

    def fitting(by: int, orders: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(a for a, k in zip(orders, cost_of(job, by / 1e6, orders), strict=True) if k <= room[a])

    # Every part's own noise stays where the database prices it.
    low = max(math.ceil(round(MIN_NOISE_MULTIPLIER * 1e6) / Fraction(part.noise)) for part in job)
    most = _most(job, at_most)
    usable = tuple(a for a, left in room.items() if left > 0)
    if not usable or low > most:
        return None
    high = most if at_most < MAX_NOISE_MULTIPLIER else min(most, max(low, 10**6))
    while not (found := fitting(high, usable)):
        if high == most:
            return None
        low, high = high, min(most, 4 * high)
    usable = found
    if found := fitting(low, usable):
        return low / 1e6, found[0]
    while high - low > 1:
        middle = (low + high) // 2
        if found := fitting(middle, usable):
            high, usable = middle, found
        else:
            low = middle
    return high / 1e6, usable[0]


def how_many_fit(cap: Sequence[int], used: Sequence[int], job: Curve) -> int:
    """How many jobs of this cost still fit beside what is used, one after the other."""
    return max(max(0, c - u) // k if k < SATURATION else 0 for c, u, k in zip(cap, used, job, strict=True))


def largest_epsilon_that_fits(
    cap: Sequence[int], used: Sequence[int], delta: float, filter: Filter, job: Parts, beside: Curve | None = None
) -> float:
    """Largest epsilon at which one more job of this shape fits beside what is used; 0 if none does. beside: what the
    job takes besides, at a noise of its own."""
    more = beside or filter.nothing
    left = [c - u - m for c, u, m in zip(cap, used, more, strict=True)]
    found = _least_noise(_room(left, filter), job)
    if found is None:
        return 0.0
    return epsilon_alone(total([cost_of(job, found[0], filter.orders), more]), delta, filter)


def largest_share_that_fits(
    cap: Sequence[int],
    used: Sequence[int],
    filter: Filter,
    job: Parts,
    at_most: float = 1.0,
    beside: Curve | None = None,
) -> float:
    """Largest share, at most this one, for which one more job of this shape can be had; 0 if none can. beside: what the
    job takes besides, at a noise of its own."""
    left = min(at_most, share_left(cap, used, filter))
    quietest = total([_quietest(filter.orders, job), beside or filter.nothing])
    return left if left >= share_up(quietest, cap, filter) else 0.0
