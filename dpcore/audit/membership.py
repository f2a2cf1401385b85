"""Membership by a black box: of a job as it is, its own optimiser and learning rate, what the released weights say of
records that were in and records that were not.

Both kinds come from one list, and coins decide; each is scored by how far its loss fell from the public weights to the
released ones. (A public file held against fresh text compares two sets of strangers, whose losses differ whether one of
them was learnt from or not: such a test cannot fail, and shows nothing.)
"""

from pathlib import Path

import numpy as np
import torch

from dpcore.audit import units as made_up
from dpcore.audit.canaries import train
from dpcore.audit.guesses import Scored
from dpcore.audit.subject import ReadySubject, Subject, prepare
from dpcore.audit.units import MadeUpUnits
from dpcore.explicit_mask import explicit_masks
from dpcore.mechanism.keystream import Streams


def scores(
    subject: Subject,
    folder: Path,
    canaries: int,
    *,
    planted: MadeUpUnits | None = None,
    coins: np.random.Generator | None = None,
    streams: Streams | None = None,
) -> tuple[Scored, ReadySubject]:
    """Of so many records or users. planted: public ones, in place of made-up ones. Raises as `canaries.scores` does."""
    coins = np.random.default_rng() if coins is None else coins
    units = planted or made_up.make(canaries, subject.task, subject.unit)
    ready = prepare(subject, folder, len(units), as_job=True)
    included = coins.random(len(units)) < 0.5
    before = _losses(ready, units)
    train(ready, units.only(included), lambda step: None, streams=streams)
    return Scored(before - _losses(ready, units), included), ready


@torch.no_grad()
def _losses(ready: ReadySubject, units: MadeUpUnits) -> np.ndarray:
    """Of each unit, the mean of its records': float64 [units]."""
    records, found = units.encode(ready.task), []
    with explicit_masks():
        for unit in range(len(units)):
            places = units.of(unit)
            length = int(np.asarray(records.lengths)[places].max())
            found.append(ready.task.losses(ready.model, records, places, length).double().mean().item())
    return np.array(found)
