"""Golden values of the three accountants that an installation has: the ledger's own integer curves
(`dpcore/terms/accounting.py`), and dp-accounting's Renyi and privacy loss distribution accountants. Each value has its
source; a package that was exchanged, or a number that a machine computes otherwise, shows here."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dpcore.terms import accounting as acc

_FINE = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
"""Orders that dp-accounting's own tests and Opacus use."""


@dataclass(frozen=True)
class Golden:
    """The computed value must lie in [low, high]; nan, where it could not be computed, does not."""

    accountant: str
    what: str
    source: str
    low: float
    high: float
    compute: Callable[[], float]


@dataclass(frozen=True)
class GoldenResult:
    """A value as this installation computes it."""

    accountant: str
    what: str
    source: str
    low: float
    high: float
    found: float

    @property
    def holds(self) -> bool:
        """Whether it is what it must be."""
        return self.low <= self.found <= self.high


def check() -> Iterator[GoldenResult]:
    """Every value, computed here. An error is a value that does not hold."""
    for one in values():
        try:
            found = one.compute()
        except Exception:  # noqa: BLE001  a broken package may raise anything, and that is the finding
            found = math.nan
        yield GoldenResult(one.accountant, one.what, one.source, one.low, one.high, found)


def values() -> Iterator[Golden]:
    """All of them."""
    yield from _of_curves()
    yield from _of_the_filter()
    yield from _of_renyi()
    yield from _of_losses()


def _near(value: float, relative: float) -> tuple[float, float]:
    return value * (1 - relative), value * (1 + relative)


def _of_curves() -> Iterator[Golden]:
    for sigma, q, steps, order, value, relative, source in (
        (2.0, 0.1, 10, 5, 0.07737, 7e-5, "TensorFlow Privacy, issue 158"),
        (2.5, 0.01, 50, 5, 2.18075656e-3, 1e-7, "dp-accounting, rdp_privacy_accountant_test"),
    ):
        low, high = _near(value, relative)
        yield Golden(
            "integer curve",
            f"rate {q}, noise {sigma}, {steps} steps, order {order}",
            source,
            low,
            high,
            lambda s=sigma, r=q, t=steps, a=order: acc.cost(acc.curve(s, r, (a,)), t)[0] / acc.UNITS_PER_NAT,  # type: ignore[misc]
        )
    for order in (2, 16, 128):
        # Rounded up, and by no more than a unit beside the margin of 1e-9.
        exact = order / 8 * acc.UNITS_PER_NAT
        yield Golden(
            "integer curve",
            f"rate 1, noise 2, order {order}, in units",
            "closed form: order / 2 sigma^2",
            exact,
            exact * (1 + 1e-9) + 1,
            lambda a=order: float(acc.curve(2.0, 1.0, (a,))[0]),  # type: ignore[misc]
        )


def _of_the_filter() -> Iterator[Golden]:
    source = "this project's tests, against 50-digit arithmetic"
    yield Golden("integer curve", "jobs of noise 1.6595 that fit in (8, 1e-5)", source, 54, 54, _jobs_that_fit)
    for epsilon, delta, q, steps, sigma in ((1, 1e-6, 0.01, 500, 1.390087), (3, 1e-5, 1024 / 67349, 200, 0.828839)):
        yield Golden(
            "integer curve",
            f"noise for epsilon {epsilon}, delta {delta:g}, rate {q:.4g}, {steps} steps",
            source,
            sigma - 1.5e-6,
            sigma + 1.5e-6,
            lambda e=epsilon, d=delta, r=q, t=steps: acc.calibrate(  # type: ignore[misc]
                e, d, acc.reference_filter(e, d, r, t), (acc.Part(r, t),)
            ),
        )


def _jobs_that_fit() -> float:
    held = acc.with_main(4, acc.FIRST_ORDERS)
    job = acc.cost(acc.curve(1.6595, 0.01, held.orders), 1000)
    return acc.how_many_fit(acc.caps(8, 1e-5, held), held.nothing, job)


def _of_renyi() -> Iterator[Golden]:
    table = "computed with two libraries that agree to 2e-6 (dp-accounting 0.6, Opacus 1.6)"
    for q, sigma, steps, delta, value, relative, source in (
        (0.04, 1.5, 2250, 1e-5, 7.32911117143, 5e-5, "Opacus, accountants_test"),
        (256 / 60000, 1.1, 14062, 1e-5, 2.596556, 2e-6, table),
        (0.01, 1.0, 1000, 1e-5, 2.101367, 2e-6, table),
        (1.0, 10.0, 100, 1e-5, 4.728507, 2e-6, table),
        (0.02, 4.0, 500, 1e-5, 0.440983, 2e-6, table),
    ):
        low, high = _near(value, relative)
        yield Golden(
            "Renyi",
            f"rate {q:.4g}, noise {sigma}, {steps} steps, delta {delta:g}",
            source,
            low,
            high,
            lambda s=sigma, r=q, t=steps, d=delta: _renyi(s, r, t, d),  # type: ignore[misc]
        )
    yield Golden("Renyi", "noise 4.530877117, one step, delta 1e-6", "dp-accounting", 1.0, 1.6, _one_look)


def _one_look() -> float:
    return _renyi(4.530877117, 1.0, 1, 1e-6)


def _renyi(sigma: float, q: float, steps: int, delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)
    return float(RdpAccountant(_FINE).compose(event).get_epsilon(delta))


def _of_losses() -> Iterator[Golden]:
    for q, sigma, steps, delta, value, relative, source in (
        (1.0, math.sqrt(3), 3, 0.126936, 1.0, 2e-3, "dp-accounting, pld_privacy_accountant_test"),
        (0.2, 0.5, 3, 0.15594, 1.0, 3e-3, "dp-accounting, pld_privacy_accountant_test"),
        (0.04, 1.5, 2250, 1e-5, 6.768787, 2e-3, "computed with dp-accounting 0.6 at an interval of 1e-4"),
        (1.0, 10.0, 100, 1e-5, 4.377179, 2e-3, "closed form of the Gaussian (Balle and Wang 2018)"),
        # Microsoft's are upper bounds, with 0.01 added for their own error.
        (0.05, 3.0, 1000, 1e-6, 2.527574326 - 0.01, 5e-3, "Microsoft, prv_accountant's tests"),
        (0.001, 0.8, 1000, 1e-6, 0.477771266 - 0.01, 5e-3, "Microsoft, prv_accountant's tests"),
    ):
        low, high = _near(value, relative)
        yield Golden(
            "privacy loss distribution",
            f"rate {q:.4g}, noise {sigma:.4g}, {steps} steps, delta {delta:g}",
            source,
            low,
            high,
            lambda s=sigma, r=q, t=steps, d=delta: acc.pld_epsilon((acc.Part(r, t, s),), d),  # type: ignore[misc]
        )
