"""Sampling and noise: the right distributions, from a generator of their own, never twice the same."""

import numpy as np
import pytest
import torch
from scipy import stats

from dpcore.mechanism import bounded_sum
from dpcore.mechanism.bounded_sum import BoundedSum
from dpcore.mechanism.clipping import ClippedSum
from dpcore.mechanism.keystream import Streams
from dpcore.mechanism.noise import _AT_ONCE, gaussian, noised_mean
from dpcore.mechanism.sampling import poisson


def values_of(stream, count):
    return torch.cat(list(gaussian(stream, count))).numpy()


def test_draws_are_binomial_and_every_unit_is_as_likely_as_any_other():
    streams = Streams(test_secret=b"draws")
    n, rate, draws = 400, 0.03, 4000
    counts, inclusion = np.zeros(draws, int), np.zeros(n, int)
    for i in range(draws):
        drawn = poisson(streams.at("sampling", i), n, rate)
        counts[i] = len(drawn)
        inclusion[drawn] += 1
    bins = np.arange(4, 23)
    observed = np.histogram(counts, [-0.5, *(bins + 0.5), n + 0.5])[0]
    edges = stats.binom.cdf([*bins], n, rate)
    expected = draws * np.diff([0, *edges, 1])
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert stats.chisquare(inclusion).pvalue > 1e-3


def test_small_rates_keep_their_value():
    """A rate below the resolution of a 32-bit uniform still draws at its own frequency: integers of 64 bits decide."""

    class Recorded:
        def integers(self, count):
            return np.array([0, 2**24 - 1, 2**24, 2**64 - 1], dtype=np.uint64)

    assert poisson(Recorded(), 4, 2.0**-40).tolist() == [0, 1]


def test_rate_one_takes_all_and_rates_outside_are_refused():
    streams = Streams()
    assert poisson(streams.at("sampling", 0), 5, 1.0).tolist() == [0, 1, 2, 3, 4]
    for step, rate in enumerate([0.0, -0.1, 1.1, float("nan")], start=1):
        with pytest.raises(ValueError, match="sample rate"):
            poisson(streams.at("sampling", step), 5, rate)


def test_noise_is_standard_normal_and_uncorrelated():
    values = values_of(Streams(test_secret=b"noise").at("noise", 0), 600_001)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    assert len(np.unique(values)) == len(values)  # pieces of one stream, no bit of it twice
    half = _AT_ONCE // 2
    cosines, sines = values[:half], values[half : 2 * half]  # the two of each pair
    assert abs(np.corrcoef(cosines, sines)[0, 1]) < 0.01
    assert abs(np.corrcoef(cosines**2, sines**2)[0, 1]) < 0.01


def test_noise_deviation_is_multiplier_times_sensitivity_over_the_public_batch():
    zero = ClippedSum.zero(100_000, clip_norm=3.0, clipping="flat", expected_batch=50_000, device=torch.device("cpu"))
    mean = noised_mean(zero, 2.0, 50_000, Streams(test_secret=b"level").at("noise", 0))
    expected = 2.0 * 3.0 * 1.05 / 50_000
    assert abs(mean.std().item() / expected - 1) < 0.01


CPU = torch.device("cpu")


def noised(value, *, bound=1.0, sigma=1.0, batch=1):
    """The mean of a sum with these numbers, always with the same noise."""
    total = bounded_sum.zero(len(value), bound=bound, device=CPU)
    total.value.copy_(value)
    return noised_mean(total, sigma, batch, Streams(test_secret=b"grid").at("noise", 0)), total


@pytest.mark.parametrize(("bound", "sigma"), [(1.0, 1.0), (3e-4, 0.2), (1e6, 1e6)])
def test_what_leaves_lies_on_a_public_grid(bound, sigma):
    """Low bits of the sum, which only its own data could have, are gone; the same outputs can come of any sum."""
    value = bound * torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, total = noised(value, bound=bound, sigma=sigma)
    steps = mean / total.grid
    assert torch.equal(steps, steps.round())
    assert (steps % 2).mean().item() == pytest.approx(0.5, abs=0.05)
    assert total.grid <= bound * 2.0**-28
    means = noised(value, bound=bound, sigma=sigma, batch=7)[0]  # the divisor comes after
    torch.testing.assert_close(means, mean / 7, rtol=1e-15, atol=0)


def test_a_narrower_mean_in_the_sums_own_memory_is_the_same_mean():
    """Over several pieces, so that what is written could run into what is still to be read."""
    value = torch.linspace(-1, 1, 2 * _AT_ONCE + 1001, dtype=torch.float64)
    means = []
    for dtype in (torch.float64, torch.float32):
        total = bounded_sum.zero(len(value), bound=1.0, device=CPU, memory=torch.full_like(value, torch.nan))
        total.value.copy_(value)
        means.append(noised_mean(total, 1.0, 7, Streams(test_secret=b"grid").at("noise", 0), dtype=dtype))
    assert means[1].data_ptr() == total.value.data_ptr()
    assert torch.equal(means[0].float(), means[1])


@pytest.mark.parametrize("steps", [1, -1, 3, 2**40])
def test_a_sum_that_is_steps_higher_comes_out_those_steps_higher(steps):
    """With the same noise, to the last bit: sum and noise are added as integers, so none of the sum's bits is lost."""
    value = torch.linspace(-2, 2, 1001, dtype=torch.float64)
    grid = bounded_sum.grid_of(1.0)
    value = (value / grid).round() * grid
    low, high = (noised(v, sigma=1000.0)[0] for v in (value, value + steps * grid))
    assert torch.equal(high - low, torch.full_like(low, steps * grid))


def test_noise_has_the_same_steps_whatever_the_sum_is():
    """Not so in floating point, where the sum's size decides which of the noise's low bits are left (Mironov 2012)."""
    value = torch.tensor([0.0, 1e-12, 0.3, 1.0, 77.7], dtype=torch.float64)
    grid = bounded_sum.grid_of(1.0)
    alone = noised(torch.zeros(5, dtype=torch.float64))[0] / grid
    assert torch.equal(noised(value)[0] / grid - (value / grid).round(), alone)


def test_a_sum_too_large_for_the_grid_is_cut_before_the_noise():
    value = torch.tensor([1e30, -1e30, 2.0**60], dtype=torch.float64)
    grid = bounded_sum.grid_of(1.0)
    noise = noised(torch.zeros(3, dtype=torch.float64))[0] / grid
    cut = torch.tensor([2.0**51, -(2.0**51), 2.0**51], dtype=torch.float64)
    assert torch.equal(noised(value)[0] / grid, cut + noise)


def test_a_step_has_one_noise_for_each_number_and_no_bit_of_it_twice():
    """Two sums of one draw take their noise from one stream, one after the other."""
    stream = Streams(test_secret=b"two").at("noise", 0)
    sums = [BoundedSum(torch.zeros(4, dtype=torch.float64), 1.0, 2.0**-28) for _ in range(2)]
    first, second = (noised_mean(total, 1.0, 1, stream).tolist() for total in sums)
    assert not set(first) & set(second)


def test_streams_never_repeat():
    """Other steps, other purposes and other processes' streams differ; the same one is not handed out again."""
    streams, other = Streams(), Streams()
    first = streams.at("noise", 0).integers(4).tolist()
    assert first != streams.at("sampling", 0).integers(4).tolist()
    assert first != streams.at("noise", 1).integers(4).tolist()
    assert first != other.at("noise", 0).integers(4).tolist()
    with pytest.raises(ValueError, match="already handed out"):
        streams.at("noise", 1)


def test_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    a = values_of(Streams().at("noise", 0), 10)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    torch.manual_seed(0)
    assert not np.array_equal(a, values_of(Streams().at("noise", 0), 10))
