"""Bias-only fine-tuning."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from dpcore.export import export_trained as export
from dpcore.export import load_trained as load
from dpcore.methods.heads import head_modules
from dpcore.spec.methods.bitfit import Options
from dpcore.spec.tasks import CAUSAL_LM, TaskKind

__all__ = ["attach", "export", "load"]


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PreTrainedModel:
    """Every bias trains, and a classifier's head; all else is frozen. Nothing is drawn from the seed.

    Raises ValueError when the base model has no bias.
    """
    Options.model_validate(options)
    heads = () if task in CAUSAL_LM else tuple(f"{name}." for name in head_modules(model))
    biases = 0
    for name, parameter in model.named_parameters():
        is_head, is_bias = name.startswith(heads), name.endswith(".bias")
        parameter.requires_grad_(is_head or is_bias)
        biases += is_bias and not is_head
    if not biases:
        raise ValueError("the model has no biases, so there is nothing to train")
    return model
