"""What a mechanism costs and what fits: Renyi curves and the budget filter, in whole units of 1e-12 nat.

The ledger's database prices with its own function and has the last word; this module computes the same numbers
with dp-accounting for plans and estimates, rounded so that what it says fits does fit there.

Neighbouring relation: add or remove one unit. Mechanism: Poisson-subsampled Gaussian (Mironov, Talwar and Zhang 2019).
Filter: an order i is fixed by weights w_i before the first release (fully adaptive composition at a fixed Renyi order:
Feldman and Zrnic 2021; conversion: Canonne, Kamath and Steinke 2020, Prop. 12).
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64)
"""Renyi orders, frozen: integers, so that the curve has a closed form."""

UNITS_PER_NAT = 10**12
SATURATION = 2**53
"""Costs stop here; caps stay below, so a saturated order can never certify again."""

BEST_ORDER_WEIGHT = Fraction(7, 10)
MAX_NOISE_MULTIPLIER = 1000.0
MIN_NOISE_MULTIPLIER = 0.2

PLD_INTERVAL = 1e-4
"""Nats between two values of a discretised privacy loss, which is rounded so that epsilon never comes out too small."""

Curve = tuple[int, ...]
EMPTY: Curve = (0,) * len(ORDERS)
Weights = tuple[Fraction, ...]


class DoesNotFit(ValueError):
    """No noise multiplier in the allowed range makes the mechanism fit; `smallest_epsilon` is the least that would."""

    def __init__(self, message: str, smallest_epsilon: float | None = None) -> None:
        super().__init__(message)
        self.smallest_epsilon = smallest_epsilon


@lru_cache(maxsize=4096)
def curve(noise_multiplier: float, sample_rate: float) -> Curve:
    """Cost of one step at each order, units of 1e-12 nat, rounded up; at most SATURATION."""
    event = PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier))
    accountant = RdpAccountant(list(ORDERS), NeighboringRelation.ADD_OR_REMOVE_ONE).compose(event)
    return tuple(_units_up(float(rho)) for rho in accountant.rdp)


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


def _offsets(delta: float, weights: Weights | None) -> list[float]:
    """cap_i - epsilon in nats: (log(delta w_i) - log c(a_i)) / (a_i - 1), log c(a) = -log a + (a-1) log(1-1/a)."""
    w = weights or (Fraction(1),) * len(ORDERS)
    return [
        (math.log(delta) + math.log(wi) + math.log(a) - (a - 1) * math.log1p(-1 / a)) / (a - 1)
        for a, wi in zip(ORDERS, w, strict=True)
    ]


def caps(epsilon: float, delta: float, weights: Weights | None) -> Curve:
    """Most that may be spent at each order, units of 1e-12 nat, rounded down; None for weights: the unweighted caps."""
    return tuple(min(math.floor((epsilon + o) * UNITS_PER_NAT) - 2, SATURATION - 1) for o in _offsets(delta, weights))


def fits(cap: Sequence[int], used: Sequence[int], more: Sequence[int]) -> bool:
    """The admission rule: there is an order at which what is used and what is asked stay within the cap."""
    return any(u + m <= c for c, u, m in zip(cap, used, more, strict=True))


def epsilon_alone(spent: Curve, delta: float, weights: Weights) -> float:
    """Epsilon that this cost alone would take of an empty budget with these weights and this delta, never below 0."""
    offsets = _offsets(delta, weights)
    usable = [k / UNITS_PER_NAT - o for k, o in zip(spent, offsets, strict=True) if k < SATURATION]
    if not usable:
        return math.inf
    # Two units up: caps are rounded down by as much, so asking for exactly this epsilon fits.
    return max(0.0, min(usable) + 4 / UNITS_PER_NAT)


def pld_epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Epsilon of a job on its own by its privacy loss distribution: to be shown, never to be charged.

    Tighter than the filter's, and an upper bound too, but only for a job whose plan was fixed before any other result
    was seen: it does not add up over jobs. Takes up to seconds (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022).
    """
    event = PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier))
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, PLD_INTERVAL).compose(event, steps)
    return max(0.0, float(accountant.get_epsilon(delta)))


def order_weights(best: int) -> Weights:
    """0.7 on one order, the rest shared equally; their sum is one."""
    rest = (1 - BEST_ORDER_WEIGHT) / (len(ORDERS) - 1)
    return tuple(BEST_ORDER_WEIGHT if a == best else rest for a in ORDERS)


def reference_weights(
    epsilon: float, delta: float, sample_rate: float, steps: int, noise_multiplier: float | None = None
) -> Weights:
    """Weights for a budget whose typical use is jobs of (sample_rate, steps), repeated until the budget is full.

    Without a noise multiplier the job is the one that fills the budget by itself. The best order is the one at which
    the unweighted caps hold most of these jobs. Raises DoesNotFit with the smallest epsilon that works.
    """
    open_caps = caps(epsilon, delta, None)
    if noise_multiplier is None:
        sigma = _smallest_sigma(lambda s: fits(open_caps, EMPTY, cost(curve(s, sample_rate), steps)))
        if sigma is None:
            raise _too_small(epsilon, delta, sample_rate, steps)
        noise_multiplier = sigma
    job = curve(noise_multiplier, sample_rate)
    best = max(range(len(ORDERS)), key=lambda i: Fraction(open_caps[i], job[i]) if job[i] < SATURATION else -1)
    weights = order_weights(ORDERS[best])
    if not fits(
        caps(epsilon, delta, weights), (0,) * len(ORDERS), cost(curve(MAX_NOISE_MULTIPLIER, sample_rate), steps)
    ):
        raise _too_small(epsilon, delta, sample_rate, steps)
    return weights


def _too_small(epsilon: float, delta: float, sample_rate: float, steps: int) -> DoesNotFit:
    """The least epsilon at which the quietest job, most weight on the best order, fits an empty budget."""
    quiet = cost(curve(MAX_NOISE_MULTIPLIER, sample_rate), steps)
    least = min(epsilon_alone(quiet, delta, order_weights(a)) for a in ORDERS)
    least = math.ceil(least * 1000) / 1000
    return DoesNotFit(
        f"epsilon {epsilon:g} is too small at delta {delta:g}: the smallest that works is {least:g}", least
    )


@lru_cache(maxsize=4096)
def calibrate(epsilon: float, delta: float, weights: Weights, sample_rate: float, steps: int) -> float:
    """Smallest noise multiplier (6 decimals, rounded up) at which `steps` steps take at most `epsilon` of an empty
    budget with these weights and this delta, by the ledger's own rule. Raises DoesNotFit."""
    cap = caps(epsilon, delta, weights)
    sigma = _smallest_sigma(lambda s: fits(cap, EMPTY, cost(curve(s, sample_rate), steps)))
    if sigma is None:
        quiet = cost(curve(MAX_NOISE_MULTIPLIER, sample_rate), steps)
        least = math.ceil(epsilon_alone(quiet, delta, weights) * 1000) / 1000
        raise DoesNotFit(
            f"{steps} steps at sample rate {sample_rate:g} cannot be had for epsilon {epsilon:g} at delta {delta:g}; "
            f"the smallest epsilon that works is {least:g}",
            least,
        )
    return sigma


def _smallest_sigma(good: Callable[[float], bool]) -> float | None:
    """Bisect for the smallest noise multiplier on the grid of 1e-6 that is good; cost falls as sigma grows."""
    low, high = round(MIN_NOISE_MULTIPLIER * 1e6), round(MAX_NOISE_MULTIPLIER * 1e6)
    if not good(high / 1e6):
        return None
    if good(low / 1e6):
        return low / 1e6
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle / 1e6) else (middle, high)
    return high / 1e6


def how_many_fit(cap: Sequence[int], used: Sequence[int], job: Curve) -> int:
    """How many jobs of this cost still fit beside what is used, one after the other."""
    return max(max(0, c - u) // k if k < SATURATION else 0 for c, u, k in zip(cap, used, job, strict=True))


def largest_epsilon_that_fits(
    cap: Sequence[int], used: Sequence[int], delta: float, weights: Weights, sample_rate: float, steps: int
) -> float:
    """Largest epsilon at which one more job of this shape fits beside what is used; 0 if none does."""
    sigma = _smallest_sigma(lambda s: fits(cap, used, cost(curve(s, sample_rate), steps)))
    return 0.0 if sigma is None else epsilon_alone(cost(curve(sigma, sample_rate), steps), delta, weights)
