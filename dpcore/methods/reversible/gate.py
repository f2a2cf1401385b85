"""Whether layers that are computed again give the gradients of exact autograd: found out on a made-up record, before
anything is paid, with the weights as they are and moved."""

from contextlib import nullcontext

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


def require_held(model: nn.Module, task: TaskKind) -> None:
    """Raises HalfPrecision for weights with too few digits, and InexactGradient, with the model, its depth and the way
    out, where a state is not finite or off the grid, or a gradient is not exact autograd's."""
    require_digits(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    depth = sum(isinstance(module, network.Coupled) for module in model.modules())
    what = f"a reversible network of this model ({type(model).__name__}, {depth} coupled layers)"
    for by in (0.0, *MOVES):
        where = f"with its weights moved by {by:g} of their size" if by else "as it is"
        with moved(parameters, by) if by else nullcontext(), evaluating(model), explicit_masks():
            exact, largest = _plainly(model, parameters, task)
            if not exact.isfinite().all() or not largest < network.LARGEST:
                raise InexactGradient(
                    f"{what} {where} has states up to {largest:.1e}, of which it can undo none beyond "
                    f"{network.LARGEST:.1e}, or a gradient that is not finite; take lora or side"
                )
            found = _gradient(model, parameters, task)
        cosine = float(found @ exact / (found.norm() * exact.norm()).clamp(min=torch.finfo(exact.dtype).tiny))
        ratio = float(found.norm() / exact.norm())
        if not (cosine >= LEAST_COSINE and abs(ratio - 1) <= MOST_OFF):
            raise InexactGradient(
                f"{what} {where}, coupled by {network.COUPLING:g}, has other gradients than exact autograd when its "
                f"layers are computed again: their cosine is {cosine:.4f}, where {LEAST_COSINE} is asked for, and "
                f"their norm {ratio:.3f} times the exact one; take lora or side"
            )


def _plainly(model: nn.Module, parameters: dict[str, nn.Parameter], task: TaskKind) -> tuple[Tensor, float]:
    """The gradient by exact autograd, and the largest number of a state."""
    largest = [0.0]
    hooks = [
        module.register_forward_hook(lambda _, __, out: largest.append(_size(out)))
        for module in model.modules()
        if isinstance(module, network.Coupled)
    ]
    try:
        with network.plainly(model):
            return _gradient(model, parameters, task), max(largest)
    finally:
        for hook in hooks:
            hook.remove()


def _size(out: Tensor | tuple[Tensor, ...]) -> float:
    return float((out[0] if isinstance(out, tuple) else out).detach().abs().max())


def _gradient(model: nn.Module, parameters: dict[str, nn.Parameter], task: TaskKind) -> Tensor:
    """Of a made-up record's loss over all that trains, float64 [P]."""
    ids = made_up(model.config).to(next(model.parameters()).device)  # type: ignore[arg-type]
    cache = {"use_cache": False} if task in CAUSAL_LM else {}
    with torch.enable_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **cache).logits
        loss = (logits.logsumexp(-1) - logits[..., 0]).sum()
        parts = torch.autograd.grad(loss, list(parameters.values()))
    return torch.cat([part.flatten() for part in parts]).double()
