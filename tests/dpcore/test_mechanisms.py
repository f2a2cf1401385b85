"""Each mechanism costs what the accountant says of its numbers, and phases that share a price share it exactly."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore.mechanism import output
from dpcore.terms import accounting as acc
from dpcore.terms.mechanisms import Gaussian, PoissonGaussian, Whole, subsampled
from dpcore.terms.program import Program, parts, scaled

from .test_train import make_phase, make_program, secret

ORDERS = (*acc.BASE_ORDERS, 256, 512)
RATES, NOISES = st.floats(1e-5, 1.0), st.floats(0.3, 50)
HELD = acc.reference_filter(3.0, 1e-5, 0.25, 100)


@settings(deadline=None, max_examples=25)
@given(rate=RATES, noise=NOISES, steps=st.integers(1, 10**6))
def test_a_mechanism_costs_what_the_accountant_says_of_it(rate: float, noise: float, steps: int) -> None:
    drawn, everyone = PoissonGaussian(sample_rate=rate, noise_multiplier=noise), Gaussian(noise_multiplier=noise)
    assert drawn.curve(ORDERS) == acc.curve(noise, rate, ORDERS)
    assert everyone.curve(ORDERS) == acc.curve(noise, 1.0, ORDERS)
    assert everyone.curve(ORDERS) == PoissonGaussian(sample_rate=1.0, noise_multiplier=noise).curve(ORDERS)
    for inner in (drawn, everyone):
        whole = Whole(of=inner)
        assert whole.curve(ORDERS) == inner.curve(ORDERS)
        assert (whole.sample_rate, whole.noise_multiplier) == (inner.sample_rate, inner.noise_multiplier)
        assert (whole.indivisible, inner.indivisible) == (True, False)
        phase = make_phase(steps=steps).model_copy(update={"mechanism": whole})
        assert phase.cost(ORDERS) == acc.cost(inner.curve(ORDERS), steps)
        assert phase.cost(ORDERS, 1) == inner.curve(ORDERS)


def test_a_program_costs_the_sum_of_its_phases() -> None:
    phases = (make_phase(steps=3), make_phase(steps=5, sample_rate=0.1, noise_multiplier=0.9))
    both = [acc.cost(acc.curve(0.5, 0.25, ORDERS), 3), acc.cost(acc.curve(0.9, 0.1, ORDERS), 5)]
    assert make_program(phases=phases).cost(ORDERS) == acc.total(both)


def test_a_gaussian_on_the_whole_file_draws_everyone() -> None:
    phase = make_phase().model_copy(update={"mechanism": Gaussian(noise_multiplier=1.0)})
    assert np.array_equal(output.draw(phase, secret().at("sampling", 0), 1000), np.arange(1000))
    some = output.draw(make_phase(sample_rate=0.25), secret().at("sampling", 0), 1000)
    assert 150 < len(some) < 350


@given(
    noises=st.lists(st.integers(1, 10**8), min_size=1, max_size=4),
    by=st.integers(1, 10**8),
)
def test_scaled_noises_keep_their_ratios_on_the_grid_and_round_up(noises: list[int], by: int) -> None:
    """By less than a step of it each, so that no phase has less than was priced."""
    given_, factor = [n / 1e6 for n in noises], by / 1e6
    made = [PoissonGaussian(sample_rate=0.5, noise_multiplier=noise) for noise in given_]
    made += [Whole(of=Gaussian(noise_multiplier=noise)) for noise in given_]
    for mechanism, noise in zip(made, given_ * 2, strict=True):
        exact, got = Fraction(noise) * by, mechanism.scaled(factor).noise_multiplier * 1e6
        assert got == pytest.approx(round(got), abs=1e-6 * max(1.0, got * 1e-9))
        assert round(got) - 1 < exact <= round(got)
        assert mechanism.scaled(factor).sample_rate == mechanism.sample_rate
        assert acc.scaled(noise, factor) == mechanism.scaled(factor).noise_multiplier


JOBS = [
    (acc.Part(0.25, 50), acc.Part(0.25, 100)),
    (acc.Part(0.01, 1000), acc.Part(1.0, 3, 4.0)),
    (acc.Part(0.05, 200, 1.0), acc.Part(0.05, 200, 2.0)),
]


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("job", JOBS)
def test_two_phases_are_calibrated_to_one_price(job: acc.Parts, epsilon: float) -> None:
    """Their program fits at the target, and not with a step of the grid less noise. It has more noise than either phase
    alone, and less than if each had half of epsilon."""
    phases = tuple(
        make_phase(sample_rate=p.sample_rate, steps=p.steps, noise_multiplier=p.noise, name=str(i))
        for i, p in enumerate(job)
    )
    assert parts(phases) == job
    cap = acc.caps(epsilon, 1e-5, HELD)

    def program(by: float) -> Program:
        return make_program(phases=scaled(phases, by))

    by = acc.calibrate(epsilon, 1e-5, HELD, job)
    assert acc.fits(cap, HELD.nothing, program(by).cost(HELD.orders))
    assert not acc.fits(cap, HELD.nothing, program(by - 1e-6).cost(HELD.orders))
    assert acc.cost_of(job, by, HELD.orders) == program(by).cost(HELD.orders)
    assert acc.epsilon_alone(program(by).cost(HELD.orders), 1e-5, HELD) <= epsilon + 1e-9
    alone = max(acc.calibrate(epsilon, 1e-5, HELD, (part,)) for part in job)
    halves = max(acc.calibrate(epsilon / 2, 1e-5, HELD, (part,)) for part in job)
    assert alone < by < halves


def test_a_job_of_no_noise_in_range_is_refused_with_the_least_that_works() -> None:
    job = (acc.Part(1.0, 5000), acc.Part(1.0, 5000, 3.0))
    with pytest.raises(acc.DoesNotFit, match="5000 steps at sample rate 1 and 5000 steps") as refused:
        acc.calibrate(0.05, 1e-5, HELD, job)
    least = refused.value.smallest
    assert least is not None
    by = acc.calibrate(least, 1e-5, HELD, job)
    assert by * 3.0 <= acc.MAX_NOISE_MULTIPLIER


@settings(deadline=None, max_examples=30)
@given(
    epsilon=st.floats(2.5, 20),
    before=st.lists(st.tuples(st.sampled_from([0.01, 0.1]), st.integers(1, 300), st.floats(0.05, 0.4)), max_size=3),
    job=st.sampled_from(JOBS),
    part=st.floats(0.01, 1.0),
)
def test_a_job_of_a_share_that_is_left_always_fits(
    epsilon: float, before: list[tuple[float, int, float]], job: acc.Parts, part: float
) -> None:
    """At the main order, by the ledger's own rule; and what has been admitted never adds up to more than all."""
    cap, place = acc.caps(epsilon, 1e-5, HELD), HELD.main
    used, shares = HELD.nothing, []

    def admit(share: float, job: acc.Parts) -> None:
        nonlocal used
        assert share <= acc.share_left(cap, used, HELD)
        cost = acc.cost_of(job, acc.calibrate_share(share, cap, HELD, job), HELD.orders)
        assert used[place] + cost[place] <= cap[place]
        assert acc.fits(cap, used, cost)
        assert acc.share_up(cost, cap, HELD) <= share + 1e-12
        used, more = acc.total([used, cost]), acc.share_up(cost, cap, HELD)
        shares.append(more)

    for rate, steps, wanted in before:
        left = acc.share_left(cap, used, HELD)
        admit(math.floor(wanted * left * 1e6) / 1e6 or left, (acc.Part(rate, steps),))
    left = acc.share_left(cap, used, HELD)
    if acc.largest_share_that_fits(cap, used, HELD, job):
        assert acc.largest_share_that_fits(cap, used, HELD, job) == left
        least = acc.share_up(acc.cost_of(job, acc.MAX_NOISE_MULTIPLIER / 4, HELD.orders), cap, HELD)
        admit(min(left, max(least, math.floor(part * left * 1e6) / 1e6)), job)
    exact = Fraction(used[place], cap[place])
    assert exact <= 1
    assert 0 <= sum(shares) - float(exact) <= 1e-6 * len(shares) + 1e-12
    assert sum(shares) <= 1 + 1e-6 * len(shares)
    # What is left is rounded down, what was taken up.
    assert acc.share_left(cap, used, HELD) <= 1 - exact
    assert acc.share_up(used, cap, HELD) >= exact


def test_shares_of_a_budget_that_is_full_or_has_nothing() -> None:
    cap = acc.caps(3.0, 1e-5, HELD)
    assert acc.share_left(cap, cap, HELD) == 0.0
    assert acc.share_up(cap, cap, HELD) == 1.0
    assert acc.share_left(cap, acc.total([cap, cap]), HELD) == 0.0
    assert acc.share_up(cap, [0] * len(cap), HELD) == math.inf
    with pytest.raises(acc.DoesNotFit, match="smallest that works"):
        acc.calibrate_share(1e-6, cap, HELD, JOBS[0])


def test_a_phase_says_what_it_is() -> None:
    drawn = subsampled(25, 100, noise=2.0)
    assert (
        drawn.sentence(7)
        == "at most 7 steps, each on a Poisson draw at rate 0.25 with noise of 2 times the clipping norm"
    )
    assert Whole(of=drawn).sentence(7) == (
        "7 steps, each on a Poisson draw at rate 0.25 with noise of 2 times the clipping norm, of which only the last is "
        "released"
    )
    assert Gaussian(noise_multiplier=2.0).sentence(7) == (
        "at most 7 steps, each on the whole file with noise of 2 times the clipping norm"
    )
