"""Whether the engine is exact for this model: found out on public records, before the first step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.bounded_sum import ROUNDING_SLACK
from dpcore.engine.errors import HalfPrecision, InexactGradient, Regrouped
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.separate import require_separate
from dpcore.engine.tape import Uses

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


def require_exact(
    engine: PerExample | OneByOne, model: nn.Module, losses: Callable[[np.ndarray], Tensor], examples: int
) -> Uses:
    """Compare the engine's gradients of different public examples with plain autograd's, one example at a time.

    losses(indices): one loss for each index out of range(examples), differentiable. Returns the uses of parameters
    whose gradients were told apart by example.

    Raises Regrouped where a gradient among the others is further from the same alone than the sensitivity of a sum has
    room for; InexactGradient, naming the parameters, for more than half the digits of their type, as where a model
    mixes its examples, or lays them out in a way that a layer's shape does not show; NothingToCompare; MixedExamples as
    `require_separate` does; and what the engine raises.
    """
    require_separate(model, lambda: losses(np.arange(examples)))
    parameters = list(engine.parameters.values())
    compared = False
    with evaluating(model):
        gradients = engine.gradients(lambda: losses(np.arange(examples)), examples)
        norms, uses = gradients.norms(), engine.uses
        for i in range(examples):
            row = torch.zeros(engine.width, dtype=torch.float64, device=engine.device)
            gradients.add_weighted(row, (torch.arange(examples, device=engine.device) == i).to(norms.dtype))
            alone = torch.cat([g.flatten() for g in torch.autograd.grad(losses(np.array([i]))[0], parameters)]).double()
            if not alone.isfinite().all():
                raise NotFinite(f"a public record's gradient has norm {alone.norm()}: nothing can be compared")
            _require_close(engine, row, alone, norms[i])
            compared = compared or bool(alone.any())
    if not compared:
        raise NothingToCompare("a public record's gradient has norm 0: nothing can be compared")
    return uses if examples > 1 else frozenset()


def _require_close(engine: PerExample | OneByOne, row: Tensor, alone: Tensor, measured: Tensor) -> None:
    """row, alone: one example's gradient among others and by itself, float64 [P]; measured: the engine's norm of it."""
    norm, distance = alone.norm(), (row - alone).norm()
    digits = torch.finfo(next(iter(engine.parameters.values())).dtype).eps ** 0.5
    if distance > digits * norm:
        errors = engine.unflatten(row - alone)
        names = [name for name, error in errors.items() if error.norm() > digits * norm / len(errors) ** 0.5]
        raise InexactGradient(f"per-example gradients are not each example's own: {', '.join(names)}")
    if not norm * (1 - ROUNDING_SLACK) <= measured <= norm * (1 + _NORM_ABOVE):
        kind = Regrouped if norm * (1 - digits) <= measured <= norm else InexactGradient
        raise kind(f"the norm of an example's gradient is {norm.item()}, not {measured.item()}")
    if distance > ROUNDING_SLACK * norm:
        raise Regrouped(
            f"rounding moves a clipped gradient by {distance / norm:.1e} of the clip norm among other records, where "
            f"the sensitivity has room for {ROUNDING_SLACK:.0e}"
        )


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
