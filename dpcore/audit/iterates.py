"""What a run releases, and nothing else of it: its iterates, seen through the hooks that a method has in the loop.

The weights before a step, less the weights after it, over the step's public learning rate, are the step's noised mean:
what a program says is done with it is plain descent. Draws, sums and noise are never looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpcore.run import Begin, Learns
from dpcore.terms.program import Phase
from dpcore.train import Between, Iterate


@dataclass(frozen=True)
class StepSeen:
    """model: with the weights as they were before the step. trains: what trained, by name. mean: the noised mean of the
    step's sum, by the same names. task: as the phase learns it."""

    model: nn.Module
    phase: Phase
    task: Any
    trains: dict[str, nn.Parameter]
    mean: dict[str, Tensor]


class IterateWatch:
    """Hands every step of a run to `see`, in the place of a method's hooks, which it calls."""

    def __init__(self, see: Callable[[StepSeen], None], *, begin: Begin, learns: Learns, between: Between) -> None:
        self._see, self._begin, self._learns, self._between = see, begin, learns, between
        self._before: dict[nn.Parameter, Tensor] = {}
        self._tasks: dict[str, Any] = {}

    def begin(self, model: nn.Module, phase: Phase, kept: dict[str, Tensor]) -> None:
        """As the method does; the phase begins at these weights."""
        self._begin(model, phase, kept)
        self._keep(model)

    def learns(self, model: nn.Module, phase: Phase, task: Any) -> Any:
        """As the method does."""
        self._tasks[phase.name] = self._learns(model, phase, task)
        return self._tasks[phase.name]

    def between(self, iterate: Iterate) -> bool:
        """As the method does, once the step was seen."""
        if not iterate.over:
            self._look(iterate)
        changed = self._between(iterate)
        self._keep(iterate.model)
        return changed

    def _look(self, iterate: Iterate) -> None:
        phase = iterate.phase
        rate = phase.learning_rate * (1 - (iterate.step - 1) / phase.steps)
        trains = {name: p for name, p in iterate.model.named_parameters() if p.requires_grad}
        after = {p: p.detach().clone() for p in trains.values()}
        mean = {n: (self._before[p].double() - p.detach().double()) / rate for n, p in trains.items()}
        self._put(self._before, trains)
        try:
            self._see(StepSeen(iterate.model, phase, self._tasks[phase.name], trains, mean))
        finally:
            self._put(after, trains)

    @staticmethod
    @torch.no_grad()
    def _put(values: dict[nn.Parameter, Tensor], trains: dict[str, nn.Parameter]) -> None:
        for p in trains.values():
            p.copy_(values[p])

    def _keep(self, model: nn.Module) -> None:
        self._before = {p: p.detach().clone() for p in model.parameters()}
