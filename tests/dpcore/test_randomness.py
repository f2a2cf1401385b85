"""Sampling and noise: the right distributions, from a generator of their own, never twice the same."""

import numpy as np
import pytest
import torch
from scipy import stats

from dpcore.clipping import ClippedSum
from dpcore.keystream import Streams
from dpcore.noise import _AT_ONCE, gaussian, noised_mean
from dpcore.sampling import poisson


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
