"""The optimisers, on noised means and public values alone, which makes everything here post-processing.

adamw: torch's AdamW. adam-bc: Adam whose second moment is freed of the noise (`adam_bc.py`). sgd: torch's SGD with
momentum, its first beta.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dpcore.adam_bc import AdamBC
from dpcore.terms.program import Phase


def make(parameters: Mapping[str, nn.Parameter], phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser over the trainable parameters, with the phase's public settings."""
    tensors, rate, decay = list(parameters.values()), phase.learning_rate, phase.weight_decay
    if phase.optimizer == "sgd":
        return torch.optim.SGD(tensors, lr=rate, momentum=phase.betas[0], weight_decay=decay)
    kind = AdamBC if phase.optimizer == "adam-bc" else torch.optim.AdamW
    return kind(tensors, lr=rate, betas=phase.betas, weight_decay=decay)


def step(
    optimiser: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    mean: Iterable[Mapping[str, Tensor]],
    *,
    phase: Phase,
    done: int,
    deviation: float,
) -> None:
    """One iteration with the noised mean, in parts of which each has other parameters; its noise has this public
    deviation.

    The learning rate falls linearly and depends on `done` alone, the iterations before this one.
    """
    for group in optimiser.param_groups:
        group["lr"] = phase.learning_rate * (1 - done / phase.steps)
        group["noise_deviation"] = deviation
    for part in mean:
        for name, gradient in part.items():
            parameters[name].grad = gradient.to(parameters[name].dtype)
        optimiser.step()  # leaves alone what has no gradient
        optimiser.zero_grad(set_to_none=True)


def averages(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Averages over no iterates, by parameter name: float32 or better [*parameter.shape]."""
    kinds = {name: torch.promote_types(p.dtype, torch.float32) for name, p in parameters.items()}
    return {name: torch.zeros_like(p, dtype=kinds[name], requires_grad=False) for name, p in parameters.items()}


@torch.no_grad()
def average(averages: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], *, decay: float, done: int) -> None:
    """Take the iterate after `done` iterations into the averages, in place.

    Iterate i of t weighs decay^(t - i) (1 - decay) / (1 - decay^t): the exponential average without its bias towards
    where it began, so that few steps are averaged well too.
    """
    unbiased = (decay - decay**done) / (1 - decay**done)
    current = [p.to(averages[name].dtype) for name, p in parameters.items()]
    get_ema_multi_avg_fn(unbiased)(list(averages.values()), current, done)  # type: ignore[no-untyped-call]
