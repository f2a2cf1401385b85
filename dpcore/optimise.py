"""The optimiser: torch's AdamW on noised means, which makes everything here post-processing."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dpcore.spec.plan import Plan


def adamw(parameters: Mapping[str, nn.Parameter], plan: Plan) -> torch.optim.AdamW:
    """DP-AdamW over the trainable parameters, with the plan's public settings."""
    return torch.optim.AdamW(
        list(parameters.values()), lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay
    )


def step(
    optimiser: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    mean: Mapping[str, Tensor],
    *,
    plan: Plan,
    done: int,
) -> None:
    """One iteration with the noised mean; the learning rate falls linearly and depends on `done` alone."""
    for group in optimiser.param_groups:
        group["lr"] = plan.learning_rate * (1 - done / plan.steps)
    for name, parameter in parameters.items():
        parameter.grad = mean[name].to(parameter.dtype)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
