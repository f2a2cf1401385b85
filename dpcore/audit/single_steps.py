"""Single steps, many times over, in two worlds that differ by one unit: an audit of how a step is drawn and divided.

One run of many steps that hardly move the weights is as many single steps at the same weights, each with a draw and a
noise of its own. In the first world a few alike units are in the file; in the second one more is, with the same text
and the other of two labels, so that it pulls the opposite way. A draw of fixed size must leave another unit out for it,
and so moves by twice the clip norm; and a step that is divided by the size of its draw tells that size by the length of
its noise.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dpcore.audit.canaries import train
from dpcore.audit.iterates import StepSeen
from dpcore.audit.pulls import flat, pulls
from dpcore.audit.subject import Subject, prepare
from dpcore.audit.units import MadeUpUnits, make
from dpcore.mechanism.keystream import Streams
from dpcore.terms import accounting
from dpcore.terms.mechanisms import PoissonGaussian

LABELS = ("no", "yes")
RATE = 0.5
NOISE = 1.0
DELTA = 0.01
"""A mechanism's claim is one for every delta; at a large one few outputs suffice."""
_MOVE = 1e-9
"""In float64: what a step tells is told to seven digits, and the weights stay where they are."""


@dataclass(frozen=True)
class TwoWorlds:
    """Outputs of single steps, float64 [steps, 2]: how far each goes along the canary's way, and the logarithm of how
    far it goes in all other directions. claim: epsilon of a single step at DELTA."""

    without: np.ndarray
    within: np.ndarray
    claim: float


def outputs(
    subject: Subject, folder: Path, steps: int, *, batch: int = 1, streams: tuple[Streams, Streams] | None = None
) -> TwoWorlds:
    """So many steps in each world, at an expected batch of so many units; task classification, unit record. streams:
    for tests alone, one of each world."""
    alike = 2 * batch - 1
    text = make(1, subject.task, "record").columns
    both = MadeUpUnits(
        {name: list(values) * (alike + 1) for name, values in text.items()}, np.array([0] * alike + [1]), None
    )
    worlds: list[np.ndarray] = []
    for number, there in enumerate((np.arange(alike + 1) < alike, np.ones(alike + 1, dtype=bool))):
        own = None if streams is None else streams[number]
        worlds.append(_world(subject, folder, steps, both, there, batch, own))
    without, within = worlds
    return TwoWorlds(without, within, accounting.pld_epsilon((accounting.Part(RATE, 1, NOISE),), DELTA))


def _world(
    subject: Subject,
    folder: Path,
    steps: int,
    both: MadeUpUnits,
    there: np.ndarray,
    batch: int,
    streams: Streams | None,
) -> np.ndarray:
    ready = prepare(subject, folder, len(both), labels=LABELS)
    ready.model.double()
    (phase,) = ready.program.phases
    changes = {
        "mechanism": PoissonGaussian(sample_rate=RATE, noise_multiplier=NOISE),
        "expected_batch": batch,
        "steps": steps,
        "learning_rate": _MOVE * batch / (NOISE * phase.clip_norm),
    }
    program = ready.program.model_copy(update={"phases": (phase.model_copy(update=changes),)})
    single = type(ready)(subject, ready.model, ready.task, program, ready.trainer, ready.claim)
    records, seen = both.encode(ready.task), []
    way: list[Tensor] = []

    def see(step: StepSeen) -> None:
        if not way:
            found = pulls(step, both, records)
            assert found is not None
            way.append(found[-1].double() / found[-1].double().norm())
        mean = flat(step.mean) * (batch / step.phase.clip_norm)
        along = float(mean @ way[0])
        seen.append((along, math.log(max(1e-30, (mean - along * way[0]).norm().item()))))

    train(single, both.only(there), see, streams=streams)
    return np.array(seen)
