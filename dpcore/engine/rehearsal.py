"""Whether the engine is exact for this model: found out on public records, before the first step."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.engine.errors import HalfPrecision, InexactGradient, Regrouped
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.separate import require_separate
from dpcore.engine.tape import Uses
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK

_NORM_ABOVE = 0.01
"""A norm may come out too large by this much: that costs a little signal, never privacy."""

MOVES = (0.01, 0.1, 1.0)
"""How far weights are moved, in units of their own size; adapters start where they change nothing."""
_LEAST = 0.1
"""The size of weights that are smaller, or zero."""


class NothingToCompare(InexactGradient):
    """The gradients of public records are all zero."""


class NotFinite(InexactGradient):
    """A public record's gradient is not finite."""


MOST_SLACK = 1e-5
"""The largest slack that a sum claims: of the clip norm, for each unit expected in a draw."""


@dataclass(frozen=True)
class Compared:
    """uses: of parameters whose gradients were told apart by example. distance: how far at most a gradient among the
    others was from the same alone, or its norm too small, of its norm."""

    uses: Uses
    distance: float

    @property
    def slack(self) -> float:
        """What a sum must claim: twice what was seen, and never less than is claimed everywhere."""
        return max(ROUNDING_SLACK, 2 * self.distance)


def require_exact(
    engine: PerExample | OneByOne, model: nn.Module, losses: Callable[[np.ndarray], Tensor], examples: int
) -> Uses:
    """As `compare`; the uses alone."""
    return compare(engine, model, losses, examples).uses


def compare(
    engine: PerExample | OneByOne, model: nn.Module, losses: Callable[[np.ndarray], Tensor], examples: int
) -> Compared:
    """Compare the engine's gradients of different public examples with plain autograd's, one example at a time.

    losses(indices): one loss for each index out of range(examples), differentiable.

    Raises Regrouped where a gradient among the others is further from the same alone than any sum claims; for more than
    half the digits of their type InexactGradient, naming the parameters, as where a model mixes its examples, or lays
    them out in a way that a layer's shape does not show; NothingToCompare and NotFinite; MixedExamples as
    `require_separate` does; and what the engine raises.
    """
    require_separate(model, lambda: losses(np.arange(examples)))
    parameters = list(engine.parameters.values())
    compared, distance = False, 0.0
    with evaluating(model):
        gradients = engine.gradients(lambda: losses(np.arange(examples)), examples)
        norms, uses = gradients.norms(), engine.uses
        for i in range(examples):
            row = torch.zeros(engine.width, dtype=torch.float64, device=engine.device)
            gradients.add_weighted(row, (torch.arange(examples, device=engine.device) == i).to(norms.dtype))
            alone = torch.cat([g.flatten() for g in torch.autograd.grad(losses(np.array([i]))[0], parameters)]).double()
            norm = float(alone.norm())
            if not math.isfinite(norm):
                raise NotFinite(f"a public record's gradient has norm {norm}: nothing can be compared")
            distance = max(distance, _distance(engine, row, alone, norm, float(norms[i])))
            compared = compared or norm > 0
    if not compared:
        raise NothingToCompare("a public record's gradient has norm 0: nothing can be compared")
    return Compared(uses if examples > 1 else frozenset(), distance)


def _distance(engine: PerExample | OneByOne, row: Tensor, alone: Tensor, norm: float, measured: float) -> float:
    """row, alone: one example's gradient among others and by itself, float64 [P]; norm: of the latter; measured: the
    engine's."""
    moved = float((row - alone).norm())
    digits = torch.finfo(next(iter(engine.parameters.values())).dtype).eps ** 0.5
    if moved > digits * norm:
        errors = engine.unflatten(row - alone)
        names = [name for name, error in errors.items() if error.norm() > digits * norm / len(errors) ** 0.5]
        raise InexactGradient(f"per-example gradients are not each example's own: {', '.join(names)}")
    if norm == 0:
        return 0.0
    distance = max(moved, norm - measured) / norm
    if distance > digits or measured > norm * (1 + _NORM_ABOVE):
        raise InexactGradient(f"the norm of an example's gradient is {norm}, not {measured}")
    if 2 * distance > MOST_SLACK:
        if norm - measured > moved:
            raise Regrouped(f"the norm of an example's gradient is {norm}, not {measured}")
        raise Regrouped(
            f"rounding moves a clipped gradient by {distance:.1e} of the clip norm among other records, where the "
            f"sensitivity has room for {MOST_SLACK / 2:.0e}"
        )
    return distance


def require_digits(model: nn.Module) -> None:
    """Raises HalfPrecision, naming the weight, for a model with weights in bfloat16 or float16, frozen ones included:
    rounding in them moves other records' gradients by a thousand times what the sensitivity has room for."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.dtype in (torch.bfloat16, torch.float16):
            kind = str(value.dtype).removeprefix("torch.")
            raise HalfPrecision(f"{name} is {kind}: load the model in float32 (dtype=torch.float32)")


@contextmanager
def moved(parameters: Mapping[str, Tensor], by: float) -> Iterator[None]:
    """Inside, every weight is moved at random by `by` times its parameter's root mean square: public values, the same
    at every call. Outside, each has the very bits that it had."""
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for p in parameters.values():
                size = max(float(p.square().mean().sqrt()), _LEAST)
                p.add_(torch.randn(p.shape, generator=generator).to(p) * (by * size))
        yield
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(kept[name])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside, since it never falls twice the same."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
