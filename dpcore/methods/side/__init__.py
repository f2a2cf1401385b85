"""A narrow network beside the frozen model. network.py leaves with every export, as its loader."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from dpcore.export import About, export_trained
from dpcore.methods.plain import begin, between, learns
from dpcore.methods.side import network
from dpcore.models import seeded
from dpcore.terms.methods.side import Options
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]

export = partial(export_trained, loader=network)


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> nn.Module:
    """The network and a classifier's head train, all else is frozen. The seed drives the initialisation only.

    A classifier's own head is left behind: a mean over tokens and one layer take its place. Raises ValueError for a
    model whose layers' outputs cannot be read.
    """
    if not isinstance(hidden := getattr(model.config, "hidden_size", None), int):
        raise ValueError(f"a side network reads layers of one width, and {type(model).__name__} has none")
    width = Options.model_validate(options).width(hidden)
    with seeded(seed):
        if task in CAUSAL_LM:
            return network.writer(model, width)  # type: ignore[no-any-return]
        labels = [model.config.id2label[i] for i in range(len(model.config.id2label))]
        return network.classifier(model.base_model, width, labels)


def load(folder: Path, base_folder: Path, about: About) -> nn.Module:
    """The model of an export, in evaluation mode."""
    return network.load(str(base_folder), folder)  # type: ignore[no-any-return]
