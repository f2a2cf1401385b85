"""What turns the units of a draw into a clipped sum, and a noised mean of it into gradients. One module a kind, found
by its name; each offers `make`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.mechanism.clipping import ClippedSum
from dpcore.mechanism.keystream import Keystream
from dpcore.terms.program import Phase, Unit
from dpcore.terms.speed import Speed


class Records(Protocol):
    """Encoded records of a file."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int64 [n]."""


@dataclass(frozen=True)
class Setting:
    """What an estimator works on. owners: the user of each record, int64 [n], where the unit is the user."""

    model: nn.Module
    task: Any
    records: Any
    owners: np.ndarray | None
    unit: Unit
    phase: Phase
    speed: Speed
    should_stop: Callable[[], bool]


class Estimator(Protocol):
    """Of one phase, over the parameters that require a gradient when it is made."""

    parameters: Mapping[str, nn.Parameter]
    units: int
    """In the file."""
    dtype: torch.dtype
    """Of noised means."""

    def rehearse(self) -> None:
        """Run public stand-in records: what cannot be trained fails here, before any step. Raises NotTrainable."""

    def enter(self) -> None:
        """The model is this estimator's from now on: another had it meanwhile."""

    def sum(self, drawn: np.ndarray, clip_norm: float, directions: Callable[[], Keystream]) -> ClippedSum:
        """The sum of the drawn units' clipped contributions, with its sensitivity; of none it is zero. directions():
        the step's stream for random directions, to be asked for once. Raises Stopped."""

    def gradients(self, mean: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """The noised mean of the last sum as gradients by name, in as many parts as memory asks for."""

    def leave(self) -> None:
        """Give memory back."""


def make(setting: Setting) -> Estimator:
    """The estimator of the setting's phase."""
    made: Estimator = import_module(f"{__name__}.{setting.phase.estimator.kind}").make(setting)
    return made
