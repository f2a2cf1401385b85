"""A silo's message of one round, read as an iterate: it is all that leaves the silo (`dpcore/federated/silo.py`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpcore.audit import units as made_up
from dpcore.audit.guesses import Scored, together
from dpcore.audit.iterates import StepSeen
from dpcore.audit.reading import Reader
from dpcore.audit.subject import ReadySubject, Subject, prepare
from dpcore.audit.units import MadeUpUnits
from dpcore.federated import server, silo
from dpcore.federated.message import Message
from dpcore.mechanism.keystream import Streams
from dpcore.run import trainable
from dpcore.terms.federated.options import Options

METHOD = "federated-lora"
_JOB = "audit"


def scores(
    subject: Subject,
    folder: Path,
    canaries: int,
    *,
    coins: np.random.Generator | None = None,
    streams: Streams | None = None,
) -> tuple[Scored, ReadySubject]:
    """Of about so many canaries in one silo, whose program is one round of one step. Raises as `canaries.scores`."""
    coins = np.random.default_rng() if coins is None else coins
    runs = max(1, -(-canaries // subject.together))
    each, parts = max(2, canaries // runs), []
    for number in range(runs):
        ready = prepare(subject, folder, each)
        units = made_up.make(each, subject.task, subject.unit, seed=number)
        included = coins.random(each) < 0.5
        parts.append(Scored(_one_round(ready, units, included, streams), included))
    return together(parts), ready


def _one_round(ready: ReadySubject, units: MadeUpUnits, included: np.ndarray, streams: Streams | None) -> np.ndarray:
    """Scores by the message: float64 [units]."""
    options = Options.model_validate(_known(ready.program.options) | {"rounds": 1, "local_steps": 1})
    file, (phase,) = units.only(included), ready.program.phases
    own = silo.Silo(
        "silo",
        model=ready.model,
        task=ready.task,
        records=file.encode(ready.task),
        owners=file.owners,
        program=ready.program,
        options=options,
        speed=ready.subject.speed,
    )
    start = server.start(server.begin(_JOB, silo.factors(ready.model)))
    message = own.round(
        _JOB, start, authorise=lambda steps: steps, save=lambda data: None, streams=streams or Streams()
    )
    assert isinstance(message, Message)
    began, _ = own.begin(_JOB, start)
    silo.put(ready.model, began)
    trains = {name: p for name, p in trainable(ready.model).items() if name in message.delta}
    mean = {name: -message.delta[name].double() / phase.learning_rate for name in trains}
    reader = Reader(units, units.encode(ready.task), ready.program)
    with torch.enable_grad():
        reader.see(StepSeen(ready.model, phase, ready.task, trains, mean))
    return reader.scores


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a silo itself knows: who takes part and when are its coordinator's."""
    return {name: value for name, value in options.items() if name in Options.model_fields}
