"""Gaussian noise for clipped sums.

What floating point leaves open: samples are float64 Box-Muller values, not draws from the real-valued Gaussian; their
tail ends at 9.4 deviations (missed mass below 1e-20), and the sum keeps their low bits. The noised mean is rounded to
float32 before anything else is done with it, and only optimiser iterates leave the process.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from dpcore.clipping import ClippedSum
from dpcore.keystream import Keystream

_AT_ONCE = 2**18


def gaussian(stream: Keystream, count: int) -> Iterator[torch.Tensor]:
    """Independent standard normal values, float64, `count` in all, in pieces that fit a processor's cache.

    Box-Muller on 64-bit uniforms in (0, 1); no bit of the stream is used twice.
    """
    for start in range(0, count, _AT_ONCE):
        wanted = min(_AT_ONCE, count - start)
        pairs = (wanted + 1) // 2
        # float64 rounds the largest integers up to 2^64; log(1) = 0 is harmless, and + 0.5 keeps zero out of the log.
        uniform = torch.from_numpy(stream.integers(2 * pairs).astype(np.float64)).add_(0.5).mul_(2.0**-64)
        radius = uniform[:pairs].log_().mul_(-2.0).sqrt_()
        angle = uniform[pairs:].mul_(2.0 * math.pi)
        yield torch.cat([radius * angle.cos(), radius * angle.sin()])[:wanted]


def noised_mean(total: ClippedSum, noise_multiplier: float, expected_batch: int, stream: Keystream) -> torch.Tensor:
    """(sum + noise) / expected_batch: float64 [P], the only thing of a step that may be used afterwards.

    It takes the place of the sum in memory: a large vector is not needed twice, and the sum exists no longer.
    Guarantee: the noise deviation is `noise_multiplier` times the sensitivity that the sum itself carries, and the
    divisor is the public expected batch, whatever was drawn.
    """
    start = 0
    for noise in gaussian(stream, total.value.numel()):
        part = total.value[start : start + len(noise)]
        part.add_(noise.to(part.device), alpha=noise_multiplier * total.sensitivity).div_(expected_batch)
        start += len(noise)
    return total.value
