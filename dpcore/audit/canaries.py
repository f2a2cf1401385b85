"""The audit of one run: canaries in a file by coins, the public loop, scores from its iterates."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dpcore.audit import units as made_up
from dpcore.audit.guesses import Scored, together
from dpcore.audit.iterates import IterateWatch, StepSeen
from dpcore.audit.reading import Reader
from dpcore.audit.subject import ReadySubject, Subject, prepare
from dpcore.audit.units import MadeUpUnits
from dpcore.machine.micro_batches import Stopped
from dpcore.mechanism.keystream import Streams
from dpcore.run import run


def scores(
    subject: Subject,
    folder: Path,
    canaries: int,
    *,
    coins: np.random.Generator | None = None,
    streams: Streams | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Scored, ReadySubject]:
    """Of about so many canaries, in runs of equal size, each with canaries and coins of its own: what is said of one
    canary follows from its run alone, so that all of them are canaries of one larger run.

    coins, streams: for tests alone; both come from the operating system. Raises ValueError as `prepare` does, what
    `run` raises, and Stopped.
    """
    coins = np.random.default_rng() if coins is None else coins
    runs = max(1, -(-canaries // subject.together))
    each, parts = max(2, canaries // runs), []
    for number in range(runs):
        ready = prepare(subject, folder, each)
        units = made_up.make(each, subject.task, subject.unit, seed=number)
        included = coins.random(each) < 0.5
        parts.append(Scored(one_run(ready, units, included, streams=streams, should_stop=should_stop), included))
    return together(parts), ready


def one_run(
    ready: ReadySubject,
    units: MadeUpUnits,
    included: np.ndarray,
    *,
    streams: Streams | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Scores of all canaries, float64 [units], of a run on those that the coins include."""
    reader = Reader(units, units.encode(ready.task), ready.program)
    train(ready, units.only(included), reader.see, streams=streams, should_stop=should_stop)
    return reader.scores


def train(
    ready: ReadySubject,
    file: MadeUpUnits,
    see: Callable[[StepSeen], None],
    *,
    streams: Streams | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """A run of the public loop on a file; every step's release is handed to `see`. Raises Stopped."""
    watch = IterateWatch(see, begin=ready.begin, learns=ready.trainer.learns, between=ready.trainer.between)
    outcome = run(
        model=ready.model,
        task=ready.task,
        records=file.encode(ready.task),
        owners=file.owners,
        program=ready.program,
        authorise=lambda phase, steps: steps,
        save=lambda data: None,
        should_stop=should_stop,
        speed=ready.subject.speed,
        streams=streams,
        begin=watch.begin,
        learns=watch.learns,
        between=watch.between,
    )
    if outcome.ended == "stopped":
        raise Stopped
