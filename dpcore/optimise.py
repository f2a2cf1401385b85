"""The optimisers, on noised means and public values alone, which makes everything here post-processing.

adamw: torch's AdamW. adam-bc: Adam whose second moment is freed of the noise (`adam_bc.py`). sgd: torch's SGD with
momentum, its first beta.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dpcore.adam_bc import AdamBC
from dpcore.terms.plan import Plan


def make(parameters: Mapping[str, nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """The plan's optimiser over the trainable parameters, with the plan's public settings."""
    tensors = list(parameters.values())
    if plan.optimizer == "sgd":
        return torch.optim.SGD(tensors, lr=plan.learning_rate, momentum=plan.betas[0], weight_decay=plan.weight_decay)
    kind = AdamBC if plan.optimizer == "adam-bc" else torch.optim.AdamW
    return kind(tensors, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay)


def step(
    optimiser: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    mean: Mapping[str, Tensor],
    *,
    plan: Plan,
    done: int,
    deviation: float,
) -> None:
    """One iteration with the noised mean, whose noise has this public deviation.

    The learning rate falls linearly and depends on `done` alone, the iterations before this one.
    """
    for group in optimiser.param_groups:
        group["lr"] = plan.learning_rate * (1 - done / plan.steps)
        group["noise_deviation"] = deviation
    for name, parameter in parameters.items():
        parameter.grad = mean[name].to(parameter.dtype)
    optimiser.step()
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
