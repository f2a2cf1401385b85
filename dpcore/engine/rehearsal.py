"""Whether the engine is exact for this model: found out on public records, before the first step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.engine.errors import InexactGradient
from dpcore.engine.one_by_one import OneByOne
from dpcore.engine.per_example import PerExample
from dpcore.engine.separate import require_separate
from dpcore.engine.tape import Uses

_NORM_ABOVE = 0.01
"""A norm may come out too large by this much: that costs a little signal, never privacy."""


def require_exact(
    engine: PerExample | OneByOne, model: nn.Module, losses: Callable[[np.ndarray], Tensor], examples: int
) -> Uses:
    """Compare the engine's gradients of different public examples with plain autograd's, one example at a time.

    losses(indices): one loss for each index out of range(examples), differentiable. Returns the uses of parameters
    whose gradients were told apart by example. Raises InexactGradient naming the parameters whose gradients differ by
    more than half the digits of their type, as they would if a model mixed its examples, or laid them out in a way that
    a layer's shape does not show; MixedExamples as `require_separate` does; and what the engine raises.
    """
    require_separate(model, lambda: losses(np.arange(examples)))
    parameters = list(engine.parameters.values())
    with _evaluating(model):
        gradients = engine.gradients(lambda: losses(np.arange(examples)), examples)
        norms, uses = gradients.norms(), engine.uses
        for i in range(examples):
            row = torch.zeros(engine.width, dtype=torch.float64, device=engine.device)
            gradients.add_weighted(row, (torch.arange(examples, device=engine.device) == i).to(norms.dtype))
            alone = torch.cat([g.flatten() for g in torch.autograd.grad(losses(np.array([i]))[0], parameters)]).double()
            norm = alone.norm()
            if not 0 < norm < torch.inf:
                raise InexactGradient(f"a public record's gradient has norm {norm.item()}: nothing can be compared")
            most = torch.finfo(parameters[0].dtype).eps ** 0.5 * norm
            if (row - alone).norm() > most:
                errors = engine.unflatten(row - alone)
                names = [name for name, error in errors.items() if error.norm() > most / len(errors) ** 0.5]
                raise InexactGradient(f"per-example gradients are not each example's own: {', '.join(names)}")
            if not norm - most <= norms[i] <= norm * (1 + _NORM_ABOVE):
                raise InexactGradient(f"the norm of an example's gradient is {norm.item()}, not {norms[i].item()}")
    return uses if examples > 1 else frozenset()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside, since it never falls twice the same."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
