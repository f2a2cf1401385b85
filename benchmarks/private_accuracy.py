"""What does it cost to know how good a result is, by units that were held out?

held{500,2000,10000}/se{0.01,0.02}/share    the part of a budget that one measurement takes whose noise alone has this
                        standard error, in a budget of (8, 1e-6) with the reference job of rate 0.01 and 500 steps; the
                        detail has the noise, the epsilon of it alone, and the whole standard error at most, as if half
                        of the answers were right: sampling is part of it, and no price makes that less
held{...}/whole_se{...}/share    the same for the whole standard error at an accuracy of 0.9, where so few units can
                        have it at all
held{...}/covered       of so many releases, the part within 1.96 errors of the truth of the population, at an accuracy
                        of 0.9 and a noise of 1 % of the units; the detail has the part within 1.96 times the noise's
                        error of the exact accuracy on the held-out units

Prices are exact, so that there is nothing to time.
"""

import math
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from benchmarks.common import Figure, parser, report
from dpcore.mechanism.bounded_sum import zero
from dpcore.mechanism.keystream import Streams
from dpcore.mechanism.noise import noised_mean
from dpcore.terms import accounting
from dpcore.terms.measuring import CLIP_NORM, expected_error, mean_score

NAME = "private_accuracy"
HELD, ERRORS = (500, 2000, 10_000), (0.01, 0.02)
EPSILON, DELTA = 8.0, 1e-6
ACCURACY = 0.9


def priced(noise: float) -> tuple[float, float]:
    """Share and epsilon of one look at this noise."""
    filter = accounting.reference_filter(EPSILON, DELTA, 0.01, 500)
    cost = accounting.curve(noise, 1.0, filter.orders)
    cap = accounting.caps(EPSILON, DELTA, filter)
    return accounting.share_up(cost, cap, filter), accounting.epsilon_alone(cost, DELTA, filter)


def prices(held: int) -> list[Figure]:
    """At each error, of the noise alone and of the whole."""
    made = []
    sampling = ACCURACY * (1 - ACCURACY) / held
    for error in ERRORS:
        wanted = {"se": error, "whole_se": math.sqrt(max(0.0, error**2 - sampling))}
        for name, of_noise in wanted.items():
            noise = of_noise * held
            if noise < accounting.MIN_NOISE_MULTIPLIER:
                continue
            share, epsilon = priced(noise)
            detail: dict[str, object] = {
                "noise_multiplier": round(noise, 4),
                "epsilon_alone": round(epsilon, 4),
                "at_most": round(expected_error(noise, held), 4),
            }
            made.append(Figure(NAME, f"held{held}/{name}{error:g}/share", share, "share", detail=detail))
    return made


def covered(held: int, releases: int) -> Figure:
    """How often the truth is within what is told."""
    draws, streams = np.random.default_rng(held), Streams()
    noise = 0.01 * held
    population = exact = 0
    for number in range(releases):
        right = int((draws.random(held) < ACCURACY).sum())
        total = zero(2, bound=CLIP_NORM, device=torch.device("cpu"))
        total.value.copy_(torch.tensor([right - held / 2, held / 2], dtype=torch.float64))
        x, y = noised_mean(total, noise, 1, streams.at("noise", number)).tolist()
        found = mean_score(x, y, noise * total.sensitivity)
        if found is not None:
            population += abs(found.value - ACCURACY) <= 1.96 * found.standard_error
            exact += abs(found.value - right / held) <= 1.96 * found.noise_error
    detail: dict[str, object] = {"releases": releases, "exact_by_noise_alone": exact / releases}
    return Figure(NAME, f"held{held}/covered", population / releases, "share", detail=detail)


def main() -> None:
    options = parser(__doc__).parse_args()
    figures = [figure for held in HELD for figure in prices(held)]
    figures += [covered(held, 200 if options.quick else 20_000) for held in HELD]
    report(figures, options.json)


if __name__ == "__main__":
    main()
