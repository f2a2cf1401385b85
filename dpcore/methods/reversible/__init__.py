"""Adapters in a network whose layers can be undone. network.py leaves with every export, as its loader."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.engine.errors import NotTrainable
from dpcore.export import About, export_trained
from dpcore.methods.heads import head_modules
from dpcore.methods.plain import between, learns
from dpcore.methods.reversible import network
from dpcore.methods.reversible.gate import require_held
from dpcore.models import seeded
from dpcore.terms.methods.reversible import Options, coupled
from dpcore.terms.program import Phase
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]

export = partial(export_trained, loader=network)


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> nn.Module:
    """The adapters and a classifier's head train, all else is frozen. The seed drives the initialisation only.

    Raises ValueError for a model whose layers cannot be coupled, and for one that does not hold.
    """
    heads = () if task in CAUSAL_LM else head_modules(model)
    depth = int(model.config.num_hidden_layers)
    with seeded(seed):
        network.couple(model, width=Options.model_validate(options).width, first=depth - coupled(depth, task))
    for name in heads:
        model.get_submodule(name).requires_grad_(True)
    try:
        require_held(model, task)
    except NotTrainable as error:
        raise ValueError(str(error)) from error
    return model  # type: ignore[no-any-return]


def begin(model: nn.Module, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
    """What trains is what trained when the method was attached; whether it holds is asked again where it will train.
    Raises NotTrainable."""
    require_held(model, task)


def load(folder: Path, base_folder: Path, about: About) -> nn.Module:
    """The model of an export, in evaluation mode."""
    return network.load(str(base_folder), folder)  # type: ignore[no-any-return]
