"""One output of a phase's mechanism: who is drawn for it, and what is left of the sum once the noise is in."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpcore.mechanism import adaptive
from dpcore.mechanism.clipping import ClippedSum
from dpcore.mechanism.keystream import Keystream
from dpcore.mechanism.noise import noised_mean
from dpcore.mechanism.sampling import poisson
from dpcore.terms.program import Phase


@dataclass(frozen=True)
class Output:
    """mean: [P], noised. deviation: of its noise, public. clip_norm: of the next step."""

    mean: Tensor
    deviation: float
    clip_norm: float


def draw(phase: Phase, stream: Keystream, units: int) -> np.ndarray:
    """The units of one step, ascending: int64 [k]. On the whole file the rate is one, which draws everyone."""
    return poisson(stream, units, phase.mechanism.sample_rate)


def noised(phase: Phase, total: ClippedSum, clip_norm: float, stream: Keystream, *, dtype: torch.dtype) -> Output:
    """The noised mean of a step's sum, which exists no longer; a clip norm that adapts moves on."""
    noise = phase.mechanism.noise_multiplier
    if total.below is not None:
        noise, count_noise = adaptive.split(noise)
        score = noised_mean(total.below, count_noise, phase.expected_batch, stream)
        clip_norm = adaptive.next_clip_norm(clip_norm, score.item())
    deviation = noise * total.sensitivity / phase.expected_batch
    mean = noised_mean(total, noise, phase.expected_batch, stream, dtype=dtype)
    return Output(mean, deviation, clip_norm)
