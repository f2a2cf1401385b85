"""How the model scores on units that were held out of training: two sums, noised as one vector.

Guarantee: every record is scored by itself, in the shape that its own length gives, so that a unit that leaves takes
its own vector with it and moves no other unit's score, not even by rounding. No weight of the model moves.

Edge cases: a score that is no number counts as the worst; a record of a language model without a target is left out;
a unit without a record that counts adds nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.engine.errors import NotTrainable
from dpcore.engine.rehearsal import evaluating
from dpcore.estimators import Setting
from dpcore.machine.micro_batches import Stopped
from dpcore.mechanism.clipping import ClippedSum, OneVector
from dpcore.mechanism.keystream import Keystream
from dpcore.mechanism.sampling import Owners
from dpcore.terms.estimators import Measurement as MeasurementTerms
from dpcore.terms.program import Phase

NAME = "tacit.measured"
"""Of the two sums among what checkpoints keep: no weight of a model is called so."""


@runtime_checkable
class Answering(Protocol):
    """A task whose records have an answer that is right or wrong."""

    def right(self, model: nn.Module, records: Any, indices: np.ndarray, length: int) -> Tensor:
        """Whether each record gets its own label: bool [m]."""


class Measurement:
    """An `Estimator` over two numbers of its own, of the records and owners that were held out."""

    def __init__(self, setting: Setting) -> None:
        assert isinstance(setting.phase.estimator, MeasurementTerms)
        self._setting, self._most_loss = setting, setting.phase.estimator.most_loss
        self._owners = None if setting.owners is None else Owners(setting.owners)
        self.units = len(setting.records) if self._owners is None else len(self._owners)
        self.parameters: Mapping[str, nn.Parameter] = {NAME: nn.Parameter(torch.zeros(2, dtype=torch.float64))}
        self.dtype = torch.float64

    def rehearse(self) -> None:
        """A public record of the most tokens. Raises NotTrainable where it has no score."""
        task = self._setting.task
        if self._most_loss is None and not isinstance(task, Answering):
            raise NotTrainable("records of this task have no answer that is right or wrong")
        with evaluating(self._setting.model):
            self._score(task.synthetic(1, task.max_length), 0)

    def enter(self) -> None:
        """Nothing of the model is this estimator's own."""

    def sum(self, drawn: np.ndarray, clip_norm: float, directions: Callable[[], Keystream]) -> ClippedSum:
        """Of the units' vectors; there are no directions. Raises Stopped."""
        total = _nothing(self._setting.phase, clip_norm)
        with evaluating(self._setting.model):
            for unit in map(int, drawn):
                if self._setting.should_stop():
                    raise Stopped
                total.add(OneVector(self._vector(unit)))
        return total

    def gradients(self, mean: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """The noised sums, turned: a step of plain descent with rate one adds them."""
        yield {NAME: -mean}

    def leave(self) -> None:
        """Nothing is kept."""

    def _vector(self, unit: int) -> Tensor:
        """float64 [2]: of the mean score of the unit's records."""
        records = [unit] if self._owners is None else self._owners.records(unit)
        scores = [s for s in (self._score(self._setting.records, int(i)) for i in records) if s is not None]
        centred = [sum(scores) / len(scores) - 0.5, 0.5] if scores else [0.0, 0.0]
        return torch.tensor(centred, dtype=torch.float64)

    @torch.no_grad()
    def _score(self, records: Any, index: int) -> float | None:
        """Of one record, in [0, 1]; None of one that has nothing to be scored."""
        setting, one = self._setting, np.array([index])
        length = int(np.asarray(records.lengths)[index])
        if self._most_loss is None:
            return float(setting.task.right(setting.model, records, one, length)[0])
        loss = float(setting.task.losses(setting.model, records, one, length)[0])
        if loss == 0:  # exactly: there is no target
            return None
        return min(1.0, max(0.0, loss / self._most_loss)) if np.isfinite(loss) else 1.0


def deviation(phase: Phase) -> float:
    """Of the noise in each of the two sums: public."""
    return phase.mechanism.noise_multiplier * _nothing(phase, phase.clip_norm).sensitivity


def _nothing(phase: Phase, clip_norm: float) -> ClippedSum:
    """The sums over no unit. What a unit adds does not depend on who else is there, by construction; the slack that all
    sums have stays."""
    return ClippedSum.zero(
        2,
        clip_norm=clip_norm,
        clipping=phase.clipping,
        expected_batch=phase.expected_batch,
        device=torch.device("cpu"),
    )


make = Measurement
