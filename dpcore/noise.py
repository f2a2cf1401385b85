"""Gaussian noise for clipped sums.

What floating point leaves open: samples are float64 Box-Muller values, not draws from the real-valued Gaussian; their
tail ends at 9.4 deviations (missed mass below 1e-20), and the sum keeps their low bits. The noised mean is rounded to
float32 before anything else is done with it, and only optimiser iterates leave the process.
"""

import numpy as np
import torch

from dpcore.clipping import ClippedSum
from dpcore.keystream import Keystream


def gaussian(stream: Keystream, count: int) -> np.ndarray:
    """Independent standard normal values: float64 [count]. Box-Muller on 64-bit uniforms in (0, 1)."""
    pairs = (count + 1) // 2
    # float64 rounds the largest integers up to 2^64; log(1) = 0 is harmless, and + 0.5 keeps zero out of the log.
    uniform = (stream.integers(2 * pairs).astype(np.float64) + 0.5) * 2.0**-64
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def noised_mean(total: ClippedSum, noise_multiplier: float, expected_batch: int, stream: Keystream) -> torch.Tensor:
    """(sum + noise) / expected_batch: float64 [P], the only thing of a step that may be used afterwards.

    Guarantee: the noise deviation is `noise_multiplier` times the sensitivity that the sum itself carries, and the
    divisor is the public expected batch, whatever was drawn.
    """
    noise = torch.from_numpy(gaussian(stream, total.value.numel())).to(total.value.device)
    return (total.value + noise_multiplier * total.sensitivity * noise) / expected_batch
