"""Pruning while training (DPIMP, Mireshghallah et al. 2022; a reconstruction). packed.py leaves as the loader of what
is not a whole model."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.methods import full, lora
from dpcore.methods.layers import find_layers
from dpcore.methods.plain import learns
from dpcore.methods.prune.layers import shrink
from dpcore.methods.prune.leaving import export, load
from dpcore.methods.prune.masks import apply, prunable, smallest
from dpcore.methods.prune.plan import Plan, plan_of, put
from dpcore.terms.methods.prune import Options, left_layers, schedule
from dpcore.terms.program import Phase
from dpcore.terms.tasks import TaskKind
from dpcore.train import Iterate

__all__ = ["attach", "begin", "between", "export", "learns", "load"]

_LAYERS = "layers"
"""In what is kept: the base model's numbers of the layers that are left. Everything else there is a matrix's mask."""


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> nn.Module:
    """The model with what trains, pruned already where all pruning is at the start: by public weights, or of layers.

    The seed drives an adapter's initialisation only. Raises ValueError for a model whose layers cannot be found, and
    what `full` and `lora` raise.
    """
    wanted = Options.model_validate(options)
    plan = Plan(wanted, 0, (), {}, {})
    if wanted.kind == "structured":
        plan.layers = len(find_layers(model)[1])
        plan.left = left_layers(wanted, plan.layers, 0)
        if not wanted.scheduled:
            _drop(model, plan, left_layers(wanted, plan.layers, 1))
    else:
        matrices = prunable(model)
        if not wanted.scheduled:
            plan.masks = _masks(plan, matrices, 1)
            apply(plan.masks, model)
    attached: nn.Module = (
        lora.attach(model, wanted.lora.model_dump(mode="json"), task=task, seed=seed)
        if wanted.weights == "lora"
        else full.attach(model, {}, task=task, seed=seed)
    )
    if wanted.rewind:
        plan.public = {n: p.detach().clone() for n, p in attached.named_parameters() if p.requires_grad}
    put(attached, plan)
    return attached


def begin(model: nn.Module, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
    """Of a resume: the layers that were left then. Masks need nothing: the weights that come back have the zeros."""
    if _LAYERS in kept:
        _drop(cast(PreTrainedModel, model), plan_of(model), kept[_LAYERS].tolist())


def between(iterate: Iterate) -> bool:
    """Prune where the schedule says so, on the noised iterate, and keep zero what was pruned."""
    plan = plan_of(iterate.model)
    share = 1.0 if iterate.over else schedule(plan.options, iterate.phase.steps).get(iterate.step)
    if plan.options.kind == "structured":
        return share is not None and plan.options.scheduled and _drop_some(iterate, plan, share)
    if plan.options.weights == "lora":
        return False  # the base is frozen, zeros and all
    model, kept = cast(PreTrainedModel, iterate.model), iterate.kept
    if plan.masks:
        kept |= {name: mask for name, mask in plan.masks.items() if name not in kept}
    kept |= {name: mask.to(model.device) for name, mask in kept.items()}
    apply(kept, model, iterate.optimiser, iterate.averages)
    if share is not None and not plan.masks:
        trains = {name: weight for name, weight in prunable(model).items() if weight.requires_grad}
        kept |= {n: mask | kept[n] if n in kept else mask for n, mask in _masks(plan, trains, share).items()}
        if plan.public and not iterate.over:
            _rewind(iterate, plan)
        apply(kept, model, iterate.optimiser, iterate.averages)
    return False


def _masks(plan: Plan, matrices: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    options = plan.options
    return smallest(matrices, share * options.sparsity, matrix_by_matrix=options.scope == "matrix")


@torch.no_grad()
def _rewind(iterate: Iterate, plan: Plan) -> None:
    """Everything that trains is public again, with no moments, and as if it had been so all along where iterates are
    averaged."""
    iterate.optimiser.state.clear()
    for name, value in plan.public.items():
        iterate.model.get_parameter(name).copy_(value)
        if name in iterate.averages:
            iterate.averages[name].copy_(value)


def _drop_some(iterate: Iterate, plan: Plan, share: float) -> bool:
    """Whether a layer went."""
    left = left_layers(plan.options, plan.layers, share)
    if left == plan.left:
        return False
    _drop(cast(PreTrainedModel, iterate.model), plan, left)
    iterate.kept[_LAYERS] = torch.tensor(left)
    return True


def _drop(model: PreTrainedModel, plan: Plan, left: tuple[int, ...] | list[int]) -> None:
    """Leave the model the layers with these numbers in the base model."""
    shrink(model, [plan.left.index(layer) for layer in left])
    plan.left = tuple(left)
    put(model, plan)
