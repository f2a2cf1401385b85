"""Of methods with one phase, which do nothing between its steps and learn the task as it is."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dpcore.terms.program import Phase
from dpcore.terms.tasks import TaskKind
from dpcore.train import Iterate


def begin(model: nn.Module, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
    """What trains is what trained when the method was attached."""


def learns(model: nn.Module, phase: Phase, task: Any) -> Any:
    """The task itself."""
    return task


def between(iterate: Iterate) -> bool:
    """Nothing is done."""
    return False
