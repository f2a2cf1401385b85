"""Gaussian noise for sums over a draw, safe against attacks on the low bits of floating-point numbers.

The sum S and the noise N are each rounded to whole steps of the sum's public grid g and added as integers. As
round(S/g) + round(N/g) = round(round(S/g) + N/g), the result is a rounding of a Gaussian mechanism on the rounded sum,
whose sensitivity the sum carries. Every integer can come out whatever S is, so that, unlike with S + N in floating
point, the set of possible outputs tells nothing about the data (Mironov 2012; Haney et al. 2022).

What remains: N comes from Box-Muller in float64 on 64-bit uniforms. Its tail ends at 9.4 deviations (missed mass below
1e-20). Each value is off by a few 2^-53 of itself before it is rounded, so that the edges of the grid's cell n lie off
by about n * 2^-52 cells, at most 2^-20 at 9.4 deviations for a multiplier of one: probabilities, not the support,
are that little off. On a GPU the stream's bits and the uniforms are the same; its logarithm, sine and cosine may differ
from a processor's in their last bits, and stay within a few 2^-53 too.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from dpcore.mechanism.bounded_sum import BoundedSum
from dpcore.mechanism.keystream import Keystream

_AT_ONCE = 2**18
_HERE = "cpu"

_MOST_STEPS = 2.0**51
"""Sums are cut here, which brings no two of them further apart; with the noise they stay below 2^53, exact in float64.
Two million units that all pull at one single parameter come this far."""


def gaussian(stream: Keystream, count: int, device: torch.device = torch.device(_HERE)) -> Iterator[torch.Tensor]:
    """Independent standard normal values, float64 on the device, `count` in all, in pieces for a processor's cache.

    Box-Muller on 64-bit uniforms in (0, 1); no bit of the stream is used twice. On every device the uniforms are the
    same, to the bit.
    """
    for start in range(0, count, _AT_ONCE):
        wanted = min(_AT_ONCE, count - start)
        pairs = (wanted + 1) // 2
        # float64 rounds the largest integers up to 2^64; log(1) = 0 is harmless, and + 0.5 keeps zero out of the log.
        uniform = _integers(stream, 2 * pairs, device).add_(0.5).mul_(2.0**-64)
        radius = uniform[:pairs].log_().mul_(-2.0).sqrt_()
        angle = uniform[pairs:].mul_(2.0 * math.pi)
        yield torch.cat([radius * angle.cos(), radius * angle.sin()])[:wanted]


def _integers(stream: Keystream, count: int, device: torch.device) -> torch.Tensor:
    """The stream's next integers, each rounded once: float64 [count]."""
    if device.type == _HERE:  # the library's cipher is the faster one
        return torch.from_numpy(stream.integers(count).astype(np.float64))
    return rounded(stream.integers_on(device, count))


def rounded(signed: torch.Tensor) -> torch.Tensor:
    """Unsigned integers, whose bits these are, as float64."""
    # Both halves are exact, so that their sum is rounded as the integer would be.
    return ((signed >> 32) & 0xFFFFFFFF).double().mul_(2.0**32).add_((signed & 0xFFFFFFFF).double())


def noised_mean(
    total: BoundedSum,
    noise_multiplier: float,
    expected_batch: int,
    stream: Keystream,
    *,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """(sum + noise) / expected_batch: [n] of this dtype, the only thing of a step that may be used afterwards.

    It takes the place of the sum in memory: a large vector is not needed twice, and the sum exists no longer.
    Guarantee: before the division the result is a multiple of the sum's grid, its noise has a deviation of
    `noise_multiplier` times the sensitivity that the sum itself carries, and the divisor is the public expected batch,
    whatever was drawn.
    """
    deviation = noise_multiplier * total.sensitivity / total.grid
    mean = total.value.view(dtype)[: len(total.value)]
    start = 0
    for noise in gaussian(stream, total.value.numel(), total.value.device):
        part = total.value[start : start + len(noise)]
        part.mul_(1 / total.grid).round_().clamp_(-_MOST_STEPS, _MOST_STEPS)
        part.add_(noise.mul_(deviation).round_()).mul_(total.grid / expected_batch)
        if dtype != total.value.dtype:
            # Narrower numbers never reach what is still to be read; a copy in between, for they overlap with these.
            mean[start : start + len(noise)] = part.to(dtype)
        start += len(noise)
    return mean
