"""Whether layers that are computed again give the gradients of exact autograd: found out on a made-up record, before
anything is paid, with the weights as they are and moved."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpcore.engine.errors import InexactGradient, Unrunnable
from dpcore.engine.rehearsal import MOVES, NothingToCompare, evaluating, moved, require_digits
from dpcore.explicit_mask import explicit_masks
from dpcore.machine.micro_batches import out_of_memory
from dpcore.methods.reversible import network
from dpcore.methods.unused import made_up
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

LEAST_COSINE, MOST_OFF = 0.999, 0.01
"""Of each trained tensor's gradient with exact autograd's, and of the ratio of their norms to one. Over all tensors at
once, a head and the last layers would hide what becomes of the first."""


@dataclass(frozen=True)
class Held:
    """Of a model's gradient beside exact autograd's: the least cosine of a tensor, the ratio of their norms that is
    furthest from one, and the largest number of a state."""

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
        try:
            held = compare(model, task, by)
        except NothingToCompare:
            if by:  # so far from where they were, there may be nothing left
                continue
            raise
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
                f"computed again: a tensor's cosine is {held.cosine:.4f}, where {LEAST_COSINE} is asked for, and a "
                f"norm {held.ratio:.3f} times the exact one; take lora or side"
            )


def compare(model: nn.Module, task: TaskKind, by: float) -> Held:
    """The gradient of a made-up record's loss beside exact autograd's, weights moved by so many times their size.
    Raises Unrunnable for a model that cannot be run, and NothingToCompare."""
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
    # A first half behind a second that is zero has none.
    pairs = [(mine, plain) for mine, plain in zip(found, exact, strict=True) if not (mine.norm() == plain.norm() == 0)]
    if not pairs:
        raise NothingToCompare(
            f"a reversible network of this model ({type(model).__name__}) has a gradient of zero on a made-up record, "
            "so that nothing can be compared; take lora or side"
        )
    ratios = torch.stack([mine.norm() / plain.norm() for mine, plain in pairs])
    return Held(
        cosine=float(torch.stack([mine @ plain / (mine.norm() * plain.norm()) for mine, plain in pairs]).amin()),
        ratio=float(ratios[(ratios - 1).abs().argmax()]),
        largest=float(torch.stack([state.detach().abs().amax() for state in largest]).amax()),  # NaN stays NaN
    )


def _gradient(model: nn.Module, parameters: dict[str, nn.Parameter], task: TaskKind) -> list[Tensor]:
    """Of a made-up record's loss, by tensor, flat, float64."""
    ids = made_up(model.config).to(next(model.parameters()).device)
    cache = {"use_cache": False} if task in CAUSAL_LM else {}
    try:
        with torch.enable_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **cache).logits
            loss = (logits.logsumexp(-1) - logits[..., 0]).sum()
            parts = torch.autograd.grad(loss, list(parameters.values()))
    except ValueError:
        raise  # the network's own words
    except Exception as error:  # whatever a model's own code raises
        if out_of_memory(error):
            raise
        raise Unrunnable(
            f"a reversible network of this model ({type(model).__name__}) cannot be run on a short record "
            f"({type(error).__name__}); take lora or side"
        ) from error
    return [part.flatten().double() for part in parts]
