"""Whether layers that are computed again give the gradients of exact autograd: found out on a made-up record, before
anything is paid, with the weights as they are and moved."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpcore.engine.errors import InexactGradient
from dpcore.engine.rehearsal import MOVES, evaluating, moved, require_digits
from dpcore.explicit_mask import explicit_masks
from dpcore.methods.reversible import network
from dpcore.methods.unused import made_up
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

LEAST_COSINE, MOST_OFF = 0.999, 0.01
"""Of the gradient over all that trains with exact autograd's, and of the ratio of their norms to one."""


@dataclass(frozen=True)
class Held:
    """Of a gradient and exact autograd's: the cosine, and how many times its norm the former has; the largest number of
    a state."""

    cosine: float
    ratio: float
    largest: float

    @property
    def exact(self) -> bool:
        """False for what is no number, too."""
        return self.cosine >= LEAST_COSINE and abs(self.ratio - 1) <= MOST_OFF


def require_held(model: nn.Module, task: TaskKind) -> None:
    """Raises HalfPrecision for weights with too few digits, and InexactGradient, with the model, its depth and the way
    out, where a state is not finite or off the grid, or a gradient is not exact autograd's."""
    require_digits(model)
    for by in (0.0, *MOVES):
        held = compare(model, task, by)
        depth = sum(isinstance(module, network.Coupled) for module in model.modules())
        what = f"a reversible network of this model ({type(model).__name__}, {depth} coupled layers)"
        what += f" with its weights moved by {by:g} of their size" if by else " as it is"
        if not held.largest < network.LARGEST:
            raise InexactGradient(
                f"{what} has states up to {held.largest:.1e}, where it can undo none beyond {network.LARGEST:.1e}; "
                "take lora or side"
            )
        if not held.exact:
            raise InexactGradient(
                f"{what}, coupled by {network.COUPLING:g}, has other gradients than exact autograd when its layers are "
                f"computed again: their cosine is {held.cosine:.4f}, where {LEAST_COSINE} is asked for, and their norm "
                f"{held.ratio:.3f} times the exact one; take lora or side"
            )


def compare(model: nn.Module, task: TaskKind, by: float) -> Held:
    """The gradient of a made-up record's loss over all that trains beside exact autograd's, weights moved by so many
    times their size."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    largest: list[Tensor] = []
    with moved(parameters, by) if by else nullcontext(), evaluating(model), explicit_masks():
        found = _gradient(model, parameters, task)
        hooks = [
            module.register_forward_hook(lambda _, __, out: largest.append(out[0] if isinstance(out, tuple) else out))
            for module in model.modules()
            if isinstance(module, network.Coupled)
        ]
        try:
            with network.plainly(model):
                exact = _gradient(model, parameters, task)
        finally:
            for hook in hooks:
                hook.remove()
    norms = found.norm(), exact.norm()
    return Held(
        cosine=float(found @ exact / (norms[0] * norms[1])),
        ratio=float(norms[0] / norms[1]),
        largest=float(torch.stack([state.detach().abs().amax() for state in largest]).amax()),  # NaN stays NaN
    )


def _gradient(model: nn.Module, parameters: dict[str, nn.Parameter], task: TaskKind) -> Tensor:
    """Of a made-up record's loss over all that trains, float64 [P]."""
    ids = made_up(model.config).to(next(model.parameters()).device)  # type: ignore[arg-type]
    cache = {"use_cache": False} if task in CAUSAL_LM else {}
    with torch.enable_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **cache).logits
        loss = (logits.logsumexp(-1) - logits[..., 0]).sum()
        parts = torch.autograd.grad(loss, list(parameters.values()))
    return torch.cat([part.flatten() for part in parts]).double()
