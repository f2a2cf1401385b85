"""Differences of a run's steps, in which noise that was drawn twice cancels.

Two steps with the same noise tell, by their difference, what one draw has and the other has not, without any noise at
all. A canary that was drawn in one of two steps stands out then, and nothing that was left out of the file does: every
guess is that a canary was in. On fresh noise the difference has the noise of both, and tells less than either step.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpcore.audit import units as made_up
from dpcore.audit.canaries import train
from dpcore.audit.guesses import Scored, together
from dpcore.audit.iterates import StepSeen
from dpcore.audit.pulls import flat, pulls
from dpcore.audit.subject import ReadySubject, Subject, prepare
from dpcore.audit.units import MadeUpUnits
from dpcore.mechanism.keystream import Streams

RATE = 0.5
"""Of the draws: most canaries that are in are in one of two draws alone."""
_RIDGE = 1e-3
"""Beside the canaries' inner products, so that those that pull alike can be told apart no better than they are."""


def scores(
    subject: Subject,
    folder: Path,
    canaries: int,
    *,
    coins: np.random.Generator | None = None,
    streams: Streams | None = None,
) -> tuple[Scored, ReadySubject]:
    """Of the first two steps of runs with about so many canaries in all; subject.sample_rate below 1. Raises as
    `canaries.scores` does."""
    coins = np.random.default_rng() if coins is None else coins
    runs = max(1, -(-canaries // subject.together))
    each, parts = max(2, canaries // runs), []
    for number in range(runs):
        ready = prepare(subject, folder, each)
        units = made_up.make(each, subject.task, subject.unit, seed=number)
        included = coins.random(each) < 0.5
        parts.append(Scored(_one_run(ready, units, included, streams), included))
    return together(parts), ready


def _one_run(ready: ReadySubject, units: MadeUpUnits, included: np.ndarray, streams: Streams | None) -> np.ndarray:
    """How strongly the difference of two steps has each canary in it: float64 [units]."""
    records = units.encode(ready.task)
    means: list[Tensor] = []
    pulled: list[Tensor | None] = []

    def see(step: StepSeen) -> None:
        if len(means) < 2:
            means.append(flat(step.mean) * (step.phase.expected_batch / step.phase.clip_norm))
            pulled.append(pulls(step, units, records))

    train(ready, units.only(included), see, streams=streams)
    first, second = means
    found: Tensor | None = pulled[0]
    assert found is not None
    each = found.double()
    system = each @ each.T + _RIDGE * torch.eye(len(each), dtype=torch.float64)
    found_in: np.ndarray = torch.linalg.solve(system, each @ (first - second)).abs().numpy()
    return found_in
