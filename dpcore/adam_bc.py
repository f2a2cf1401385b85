"""Adam for noised gradients: the noise's known variance is taken out of the second moment.

DP-AdamBC (Tang, Shpilevskiy and Lecuyer 2024, "DP-AdamBC: your DP-Adam is actually DP-SGD (unless you apply bias
correction)", Algorithm 1). Noise of deviation s adds s^2 to the expected square of every coordinate. Where that is most
of the second moment, Adam divides all coordinates by about s and is SGD with momentum; without, each has its own scale.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

FLOOR = 0.1
"""Least second moment, of the noise's variance. What is left after the subtraction is itself off by sqrt(2 / t) of that
variance after t steps (and by 3 % at best under a second beta of 0.999), and a step must not be divided by chance."""


EPSILON = 1e-8
"""Added to the root, as in torch's Adam."""


class AdamBC(torch.optim.Optimizer):
    """torch.optim.AdamW's update with the corrected second moment.

    Each group needs `noise_deviation` before a step, the deviation of the noise in its gradients; it may change from
    step to step, so its square is averaged the way that the second moment is.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One iteration."""
        for group in self.param_groups:
            for p in group["params"]:
                _update(p, self.state[p], group)


def _update(p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["step"], state["noise_sq"] = torch.zeros(()), torch.zeros((), dtype=torch.float64)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
    first, second = group["betas"]
    state["step"] += 1
    state["noise_sq"].lerp_(torch.tensor(group["noise_deviation"] ** 2, dtype=torch.float64), 1 - second)
    state["exp_avg"].lerp_(p.grad, 1 - first)
    state["exp_avg_sq"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
    steps = state["step"].item()
    unbiased = 1 - second**steps
    noise = state["noise_sq"].item() / unbiased
    square = (state["exp_avg_sq"] / unbiased - noise).clamp_(min=FLOOR * noise)
    p.mul_(1 - group["lr"] * group["weight_decay"])
    p.addcdiv_(state["exp_avg"], square.sqrt_().add_(EPSILON), value=-group["lr"] / (1 - first**steps))
