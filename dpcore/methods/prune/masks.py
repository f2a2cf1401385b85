"""Which entries of the layers' matrices are pruned, and what that does to weights, moments and averages.

Pitfall that this file holds shut: at a pruned entry the noised mean is thrown away, never the noise alone, so that no
sum without noise reaches a weight. The optimisers work entry by entry; what one did with a pruned entry, in weight,
moments and average, is zero again before the step is over.
"""

import math
import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

Masks = Mapping[str, Tensor]
"""By the name of a matrix: True where an entry is pruned, [*matrix.shape]."""

_IN_LAYER = re.compile(r"\.\d+\.")


def prunable(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The matrices of a model's layers by name: weights of linear layers inside the numbered parts of the base model.
    Embeddings, norms, biases, a pooler and the head are none. Raises ValueError for a model that has none."""
    base = model.base_model
    prefix = "" if base is model else f"{next(name for name, m in model.named_modules() if m is base)}."
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    found = {
        f"{prefix}{name}.weight": cast(nn.Parameter, module.weight)
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and _IN_LAYER.search(f".{name}.") and id(module.weight) not in tables
    }
    if not found:
        raise ValueError(f"prune finds no matrices in numbered layers of {type(model).__name__}; full fits every model")
    return found


def smallest(weights: Mapping[str, Tensor], share: float, *, matrix_by_matrix: bool) -> dict[str, Tensor]:
    """The share, rounded up to whole entries, of smallest magnitude among all entries, or of each matrix.

    Entries that are zero already count as the smallest, so that a later, larger share has an earlier one in it.
    """
    if matrix_by_matrix:
        return {name: _smallest(weight.detach().abs(), share) for name, weight in weights.items()}
    together = _smallest(torch.cat([weight.detach().abs().flatten() for weight in weights.values()]), share)
    parts = torch.split(together, [weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def _smallest(sizes: Tensor, share: float) -> Tensor:
    """Which entries are the share of smallest size; among equals at the border the first."""
    flat = sizes.flatten()
    count = math.ceil(share * flat.numel())
    border = flat.kthvalue(count).values
    found = flat < border
    equal = (flat == border).nonzero().flatten()
    found[equal[: count - int(found.sum())]] = True
    return found.view_as(sizes)


@torch.no_grad()
def apply(
    masks: Masks,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
    averages: Mapping[str, Tensor] | None = None,
) -> None:
    """Exact zeros at pruned entries: of the weights, of the optimiser's moments and of the averages."""
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        of_it = [weight, *(optimiser.state.get(weight, {}).values() if optimiser is not None else ())]
        if averages and name in averages:
            of_it.append(averages[name])
        for value in of_it:
            if value.shape == mask.shape:  # others are counters
                value.masked_fill_(mask, 0)
